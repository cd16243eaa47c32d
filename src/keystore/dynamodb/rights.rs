//! The rights that the credentials need, and how they are checked in advance.

use serde_json::json;

use super::answer::{Refusal, judge};
use super::store::{NAME, NEVER, Store, VALUE};
use crate::keystore::{Access, Error};

/// The actions of a server; replacing keys needs one more.
const ACTIONS: [&str; 5] = ["PutItem", "GetItem", "BatchGetItem", "Query", "DeleteItem"];
const REPLACE: &str = "UpdateItem";

/// Builds the statement of an IAM policy.
pub(super) struct Rights<'a> {
    pub(super) region: &'a str,
    pub(super) table: &'a str,
    pub(super) partition: &'a str,
}

impl Rights<'_> {
    /// What to do when a right is missing.
    pub(super) fn missing(&self) -> String {
        let actions: Vec<_> = ACTIONS.iter().chain([&REPLACE]).map(|action| format!("dynamodb:{action}")).collect();
        let statement = json!({
            "Effect": "Allow",
            "Action": actions,
            "Resource": self.arn(),
            "Condition": { "ForAllValues:StringEquals": { "dynamodb:LeadingKeys": [self.partition] } },
        });
        format!("add to the statements of their IAM policy (dynamodb:UpdateItem is for 'migrate --force'): {statement}")
    }

    fn arn(&self) -> String {
        let partition = match self.region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if self.region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        format!("arn:{partition}:dynamodb:{}:*:table/{}", self.region, self.table)
    }
}

/// Checks that the credentials allow `access`, by calls whose conditions contradict themselves, so that they change
/// nothing.
pub(super) async fn check(store: &Store, access: Access) -> Result<(), Error> {
    let mut missing = Vec::new();
    let mut note = |action: &'static str, answer: Result<(), Refusal>| match answer {
        Ok(()) | Err(Refusal::Condition) => Ok(()),
        Err(Refusal::Denied(_)) => {
            missing.push(format!("dynamodb:{action}"));
            Ok(())
        }
        Err(refusal) => Err(Error::from(refusal)),
    };
    let key = store.key("claviger-check");
    let query = store.query("").limit(1).send().await.map(drop);
    note("Query", query.map_err(|error| judge(store, "Query", error)))?;
    let get = store.calls.get_item().table_name(store.table.as_str()).set_key(Some(key.clone())).consistent_read(true);
    note("GetItem", get.send().await.map(drop).map_err(|error| judge(store, "GetItem", error)))?;
    note("BatchGetItem", store.batch_get(vec![key.clone()]).await.map(drop))?;
    if access >= Access::Create {
        let put = store.calls.put_item().table_name(store.table.as_str()).set_item(Some(key.clone()));
        let put = put.condition_expression(NEVER).expression_attribute_names("#name", NAME);
        note("PutItem", put.send().await.map(drop).map_err(|error| judge(store, "PutItem", error)))?;
    }
    if access == Access::Serve {
        let delete = store.calls.delete_item().table_name(store.table.as_str()).set_key(Some(key.clone()));
        let delete = delete.condition_expression(NEVER).expression_attribute_names("#name", NAME);
        note("DeleteItem", delete.send().await.map(drop).map_err(|error| judge(store, "DeleteItem", error)))?;
    }
    if access == Access::Replace {
        let update = store.calls.update_item().table_name(store.table.as_str()).set_key(Some(key));
        let update = update.update_expression("REMOVE #value").condition_expression(NEVER);
        let update = update.expression_attribute_names("#name", NAME).expression_attribute_names("#value", VALUE);
        note(REPLACE, update.send().await.map(drop).map_err(|error| judge(store, REPLACE, error)))?;
    }
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let text = format!("the credentials do not allow {}; {}", missing.join(", "), store.rights().missing());
            Err(Error::Failed(text.into()))
        }
    }
}
