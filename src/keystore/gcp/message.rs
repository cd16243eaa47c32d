//! What is sent to Secret Manager, and what it answers.

use std::borrow::Cow;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// A secret that is to be made. Without replication the service refuses it.
#[derive(Default, Serialize)]
pub(super) struct Replication {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replication: Option<Automatic>,
}

#[derive(Serialize)]
pub(super) struct Automatic {
    pub(super) automatic: Empty,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Empty {}

/// A version that is to be added.
#[derive(Serialize)]
pub(super) struct Version<'a> {
    pub(super) payload: Payload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payload<'a> {
    /// The value in base64.
    pub(super) data: &'a str,
    pub(super) data_crc32c: Cow<'static, str>,
}

#[derive(Deserialize)]
pub(super) struct Added {
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct Accessed {
    pub(super) name: String,
    pub(super) payload: Stored,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stored {
    pub(super) data: SecretString,
    pub(super) data_crc32c: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    #[serde(default)]
    pub(super) secrets: Vec<Added>,
    #[serde(default)]
    pub(super) next_page_token: String,
}
