//! `config`: whether the file can be loaded, and its warnings.

use std::path::Path;

use super::Report;
use crate::config::{Config, Finding};
use crate::keystore;

/// Loads the file.
pub(super) fn check(file: &Path, report: &mut Report) -> Option<Config> {
    judge(file, Config::load(file), report)
}

/// Loads the section of the key store alone.
pub(super) fn check_keystore(file: &Path, report: &mut Report) -> Option<keystore::Section> {
    judge(file, Config::load_keystore(file), report)
}

fn judge<T>(file: &Path, loaded: Result<(T, Vec<Finding>), Finding>, report: &mut Report) -> Option<T> {
    match loaded {
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
