//! `config`: whether the file can be loaded, and what is odd about it.

use std::path::Path;

use super::Report;
use crate::config::Config;

/// Loads the file.
pub(super) fn check(file: &Path, report: &mut Report) -> Option<Config> {
    match Config::load(file) {
        Ok((config, warnings)) => {
            for warning in &warnings {
                report.warning("config", warning.to_string(), "correct it as the message says");
            }
            if warnings.is_empty() {
                report.ok("config", format!("{} is valid", file.display()));
            }
            Some(config)
        }
        Err(error) => {
            let fix = "correct it; 'kes-config.example.yml' shows every setting. What the file says is not checked";
            report.failed("config", error.to_string(), fix);
            None
        }
    }
}
