//! `config`: whether the file can be loaded, and its warnings.

use std::path::Path;

use super::Report;
use crate::config::{Config, Errors, Finding};
use crate::keystore;

const ID: &str = "config";

/// Loads the section of the key store alone.
pub(super) fn check_keystore(file: &Path, report: &mut Report) -> Option<keystore::Section> {
    judge(file, Config::load_keystore(file), report)
}

/// Reports what came of loading a file.
pub(super) fn judge<T>(file: &Path, loaded: Result<(T, Vec<Finding>), Errors>, report: &mut Report) -> Option<T> {
    match loaded {
        Ok((config, warnings)) => {
            for warning in &warnings {
                let id = match warning.key().split('.').next() {
                    Some("admin") => "admin",
                    Some("policy") => "policy",
                    _ => ID,
                };
                let fix = "correct it as the message says";
                match warning.is_danger() {
                    true => report.failed(id, warning.to_string(), fix),
                    false => report.warning(id, warning.to_string(), fix),
                }
            }
            if report.is_clean(ID) {
                report.ok(ID, format!("{} is valid", file.display()));
            }
            Some(config)
        }
        Err(errors) => {
            for error in errors.findings() {
                let fix = "correct it; 'kes-config.example.yml' shows every setting. What the file says is not checked";
                report.failed(ID, error.to_string(), fix);
            }
            None
        }
    }
}
