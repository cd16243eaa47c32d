//! What the `log:` section of a config says, ready to be applied.

use anyhow::Context as _;

use crate::config;
use crate::telemetry::Telemetry;
use crate::telemetry::audit::{self, Opened};
use crate::telemetry::log::Level;

/// The section, with its file open: to apply it cannot fail.
pub(in crate::cli) struct Logging {
    error: Option<Level>,
    audit: bool,
    file: Option<Opened>,
}

impl Logging {
    /// Opens the file for audit events, if there is one.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub(in crate::cli) fn open(telemetry: &Telemetry, log: &config::Log) -> anyhow::Result<Self> {
        let open = |path: &std::path::PathBuf| {
            let opened = telemetry.audit.open(path);
            opened.with_context(|| {
                format!(
                    "log.audit_file: failed to open '{}'; the server's user must be able to write there",
                    path.display()
                )
            })
        };
        let file = log.audit_file.as_ref().map(open).transpose()?;
        Ok(Self { error: log.error, audit: log.audit.is_some_and(|level| level <= audit::LEVEL), file })
    }

    pub(in crate::cli) fn apply(self, telemetry: &Telemetry) {
        telemetry.log.set_level(self.error);
        telemetry.audit.set_on(self.audit);
        telemetry.audit.set_file(self.file);
    }
}
