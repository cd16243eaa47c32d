//! The `keystore.gemalto` section of the config file. The backend is not built yet.

use serde::Deserialize;

/// The `keystore.gemalto:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}
