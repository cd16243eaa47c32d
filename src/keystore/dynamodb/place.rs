//! Where the keys are: one partition of one table. What gives the rights to it, and what makes it.

use serde_json::json;

use super::config::{Partition, Table};

/// The partition key, the sort key, and the attribute with the value.
pub(super) const STORE: &str = "store";
pub(super) const NAME: &str = "name";
pub(super) const VALUE: &str = "value";

/// The actions of a server; replacing keys needs one more.
const ACTIONS: [&str; 5] = ["PutItem", "GetItem", "BatchGetItem", "Query", "DeleteItem"];
pub(super) const REPLACE: &str = "UpdateItem";

/// One partition of one table.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) region: String,
    /// The address, unless it is that of the region.
    pub(super) url: Option<String>,
    pub(super) table: Table,
    pub(super) partition: Partition,
}

impl Place {
    /// What to do when a right is missing.
    pub(super) fn missing(&self) -> String {
        let actions: Vec<_> = ACTIONS.iter().chain([&REPLACE]).map(|action| format!("dynamodb:{action}")).collect();
        let statement = json!({
            "Effect": "Allow",
            "Action": actions,
            "Resource": self.arn(),
            "Condition": { "ForAllValues:StringEquals": { "dynamodb:LeadingKeys": [self.partition.as_str()] } },
        });
        format!("add to the statements of their IAM policy (dynamodb:UpdateItem is for 'migrate --force'): {statement}")
    }

    fn arn(&self) -> String {
        let partition = match self.region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if self.region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        format!("arn:{partition}:dynamodb:{}:*:table/{}", self.region, self.table.as_str())
    }
    /// The command that makes the table.
    pub(super) fn command(&self) -> String {
        format!(
            "aws dynamodb create-table --table-name {} --attribute-definitions AttributeName={STORE},AttributeType=S \
             AttributeName={NAME},AttributeType=S --key-schema AttributeName={STORE},KeyType=HASH \
             AttributeName={NAME},KeyType=RANGE --billing-mode PAY_PER_REQUEST --deletion-protection-enabled",
            self.table.as_str()
        )
    }
}
