//! The table: whether keys can be kept in it.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{KeyType, MultiRegionConsistency, ScalarAttributeType, TableDescription, TableStatus};

use super::answer::{Refusal, judge, no_answer};
use super::place::{NAME, Place, STORE};
use crate::keystore::Error;

/// What is known of a table; nothing without the right to ask.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Its ARN, the same however it is reached.
    pub(super) arn: Option<String>,
    /// What works, and is dangerous.
    pub(super) warnings: Vec<String>,
}

/// Asks for the table, and refuses one that cannot hold keys.
pub(super) async fn examine(calls: &Client, place: &Place) -> Result<Facts, Error> {
    let described = calls.describe_table().table_name(place.table.as_str()).send().await;
    let described = match described.map_err(|error| judge(place, "DescribeTable", error)) {
        Ok(answer) => answer.table.ok_or_else(|| no_answer("DescribeTable"))?,
        Err(Refusal::Denied(_)) => {
            let warning = "the credentials do not allow dynamodb:DescribeTable: whether the table is a global table, in \
                           which two regions could both create a key, is not known; allow it";
            return Ok(Facts { arn: None, warnings: vec![warning.into()] });
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let failed = |what: String| Err(Error::Failed(format!("the table '{}' {what}", place.table.as_str()).into()));
    if described.table_name() != Some(place.table.as_str()) {
        return Err(no_answer("DescribeTable"));
    }
    if matches!(described.table_status(), Some(TableStatus::Creating)) {
        return Err(Error::Unreachable(format!("the table '{}' is being made", place.table.as_str()).into()));
    }
    if !has_schema(&described) {
        return failed(format!("has other keys than '{STORE}' and '{NAME}'; make another: {}", place.command()));
    }
    let is_strong = described.multi_region_consistency() == Some(&MultiRegionConsistency::Strong);
    if !described.replicas().is_empty() && !is_strong {
        return failed(
            "is a global table whose regions agree later: two regions could both create a key, and one of the two would \
             be lost; use one with strong consistency across regions, or one without replicas"
                .into(),
        );
    }
    let mut warnings = Vec::new();
    if described.deletion_protection_enabled() == Some(false) {
        warnings.push(format!(
            "nothing protects the table '{0}', and all keys in it, from being deleted; aws dynamodb update-table \
             --table-name {0} --deletion-protection-enabled",
            place.table.as_str()
        ));
    }
    Ok(Facts { arn: described.table_arn, warnings })
}

/// Whether the partition key and the sort key are ours, and both are texts.
fn has_schema(table: &TableDescription) -> bool {
    let is_text = |name: &str| {
        let mut attributes = table.attribute_definitions().iter();
        attributes.any(|known| known.attribute_name() == name && *known.attribute_type() == ScalarAttributeType::S)
    };
    match table.key_schema() {
        [partition, sort] => {
            (partition.attribute_name(), partition.key_type()) == (STORE, &KeyType::Hash)
                && (sort.attribute_name(), sort.key_type()) == (NAME, &KeyType::Range)
                && is_text(STORE)
                && is_text(NAME)
        }
        _ => false,
    }
}
