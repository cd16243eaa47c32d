//! Policies: what an identity may do.

use serde::Deserialize;

use crate::auth::Identity;

/// One entry of the `policy:` section of the config file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path patterns of allowed requests.
    pub allow: Vec<String>,
    /// Path patterns of refused requests; they win.
    pub deny: Vec<String>,
    /// Whom the policy is for.
    pub identities: Vec<Identity>,
}
