//! DynamoDB as the real moto has it: tables, and what lies in them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::moto::{Moto, REGION, User};
use super::openbao::unique;

/// A table of the moto that tests share, or of another one.
pub struct DynamoDb {
    pub moto: Arc<Moto>,
    pub table: String,
}

impl DynamoDb {
    /// A new table.
    pub fn new(moto: Arc<Moto>) -> Self {
        let table = unique("keys");
        let attribute = |name| json!({ "AttributeName": name, "AttributeType": "S" });
        let key = |name, kind| json!({ "AttributeName": name, "KeyType": kind });
        make(&moto, &table, &json!([key("store", "HASH"), key("name", "RANGE")]), &["store", "name"].map(attribute));
        Self { moto, table }
    }

    /// The section of a config file whose keys are in this partition.
    pub fn section(&self, partition: &str) -> Value {
        self.section_at(&self.moto.endpoint(), partition)
    }

    /// The same at another address.
    pub fn section_at(&self, endpoint: &str, partition: &str) -> Value {
        json!({
            "table": self.table, "partition": partition, "region": REGION, "endpoint": endpoint,
            "credentials": { "accesskey": "anybody", "secretkey": "whatever" },
        })
    }

    /// The same for a user whose rights count.
    pub fn section_of(&self, user: &User, partition: &str) -> Value {
        let mut section = self.section(partition);
        section["credentials"] = json!({ "accesskey": user.access_key, "secretkey": user.secret_key });
        section
    }

    /// Everything in the table.
    pub fn items(&self) -> Vec<Value> {
        let answer = ask(&self.moto, "Scan", &json!({ "TableName": self.table, "ConsistentRead": true }));
        answer["Items"].as_array().expect("a list").clone()
    }

    /// Puts an item there.
    pub fn put(&self, item: &Value) {
        ask(&self.moto, "PutItem", &json!({ "TableName": self.table, "Item": item }));
    }
}

/// Makes a table with these keys.
pub fn make(moto: &Moto, table: &str, schema: &Value, attributes: &[Value]) {
    let body = json!({
        "TableName": table, "KeySchema": schema, "AttributeDefinitions": attributes, "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": true,
    });
    ask(moto, "CreateTable", &body);
}

fn ask(moto: &Moto, action: &str, body: &Value) -> Value {
    moto.ask_service("dynamodb", &format!("DynamoDB_20120810.{action}"), "1.0", body)
}
