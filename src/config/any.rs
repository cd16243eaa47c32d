//! A config file whose server is not known yet: that of a key server or of a key manager.

use std::path::Path as FilePath;

use super::source::Source;
use super::yaml::Node;
use super::{Config, Examined, env, kms};

/// What came of reading a config file, by the server that it is for.
#[derive(Debug)]
pub enum Any {
    /// For a key server.
    Kes(Examined<Config>),
    /// For a key manager.
    Kms(Examined<kms::Config>),
}

/// Sections that only key servers have.
const KES: [&str; 8] = ["address", "api", "cache", "keys", "keystore", "limits", "policy", "root"];

impl Any {
    /// Reads a file, behind errors too.
    pub fn examine(file: &FilePath) -> Self {
        match Source::open(file) {
            Ok(source) if is_of_key_manager(&source.document.root) => {
                Self::Kms(kms::Config::examine_source(source, &env::get))
            }
            Ok(source) => Self::Kes(Config::examine_source(source, &env::get)),
            Err(error) => Self::Kes(Examined::failed(error)),
        }
    }
}

/// Whether a file says something that only those of key managers say, or nothing but what both say.
fn is_of_key_manager(root: &Node) -> bool {
    let has = |section: &str, key: &str| root.entry(section).is_some_and(|section| section.value.entry(key).is_some());
    let admin = root.entry("admin").and_then(|admin| admin.value.entry("identity")?.value.text());
    if KES.iter().any(|section| root.entry(section).is_some()) || has("tls", "key") || has("tls", "cert") {
        return false;
    }
    root.entry("hsm").is_some()
        || has("tls", "certs")
        || admin.is_some_and(|admin| admin.starts_with("h1:"))
        || admin.is_none() && root.entry("version").is_some()
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    #[test]
    fn the_kinds_are_told_apart() {
        for (text, is_kms) in [
            ("version: v1", true),
            ("{ version: v1, log: { error: warn } }", true),
            ("{ hsm: { a: { file: x } } }", true),
            ("{ version: v1, tls: { certs: [] }, admin: { identity: h1:x } }", true),
            ("{ version: v1, admin: { identity: disabled } }", false),
            ("{ version: v1, keystore: { fs: { path: x } } }", false),
            ("{ version: v1, tls: { key: a, cert: b }, hsm: }", false),
            ("nonsense: 1", false),
        ] {
            assert_eq!(is_of_key_manager(&yaml::parse(text).expect("YAML").0), is_kms, "{text}");
        }
    }
}
