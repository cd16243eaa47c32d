//! `keystore.reach`: whether the key store answers; what else there is to check is the backend's.

use super::{Report, fs};
use crate::config::Config;
use crate::keystore::{self, Access, Error, KeyStore};
use crate::telemetry::log::causes;

const ID: &str = "keystore.reach";

/// Opens the key store, and makes nothing.
pub(super) async fn check(config: &Config, report: &mut Report) {
    let store = match keystore::open(&config.keystore).await {
        Ok(Some(store)) => store,
        Ok(None) => return missing(config, report),
        Err(error) => return unreachable(config, &error, report),
    };
    match answers(&*store).await {
        Ok(()) => report.ok(ID, format!("{store} answers")),
        Err(error) => return unreachable(config, &error, report),
    }
    if let keystore::Config::Fs(config) = &config.keystore {
        fs::check(config, report).await;
    }
}

async fn answers(store: &dyn KeyStore) -> Result<(), Error> {
    store.status().await?;
    store.check(Access::Read).await
}

fn missing(config: &Config, report: &mut Report) {
    report.warning(
        ID,
        format!(
            "what {} names does not exist: a server would make it, and an object store new keys in it",
            config.keystore_place("")
        ),
        "correct the path, or mount what belongs there; when there are no keys yet, start the server",
    );
}

fn unreachable(config: &Config, error: &Error, report: &mut Report) {
    let message = format!("{}: {}", config.keystore_place(""), causes(error));
    report.failed(ID, message, "see to what the message says; until then a server answers no request for a key");
}
