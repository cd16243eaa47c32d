//! Identities whose private keys are public, because a documentation prints them as an example.

/// One identity a line, and where its key is shown. A test says what is missing.
const LIST: &str = include_str!("published.txt");

/// Whether everybody knows the private key of an identity, given as lower-case hex.
pub fn is_published(identity: &str) -> bool {
    LIST.lines().filter_map(|line| line.split_once(' ')).any(|(published, _)| published == identity)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;
    use crate::auth::certificate::Certificate;
    use crate::auth::{Identity, api_key, enclave};
    use crate::crypto::pem;
    use crate::kms::seal::HsmKey;

    /// Every file from which operators copy.
    fn files() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut rest = vec![root.join("docs")];
        let mut files = vec![root.join("README.md"), root.join("SECURITY.md"), root.join("kes-config.example.yml")];
        while let Some(directory) = rest.pop() {
            for entry in std::fs::read_dir(directory).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() { rest.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    /// The identities of the keys, and of the certificates made for them, that a text shows.
    fn identities(text: &str) -> Vec<String> {
        // In JSON a PEM document stands on one line.
        let text = text.replace("\\n", "\n");
        let words = || text.split(|c: char| !(c.is_ascii_alphanumeric() || ":+/=_-".contains(c)));
        let kes = words().filter(|word| word.starts_with(api_key::HEADER));
        let kes = kes.filter_map(|word| api_key::ApiKey::parse(word).ok()).map(|key| key.identity().to_string());
        let kms = words().filter_map(|word| enclave::ApiKey::parse(word).ok()).map(|key| key.identity().to_hex());
        let hsm = words().filter_map(|word| HsmKey::parse(word).ok());
        let hsm = hsm.map(|key| key.root_api_key().identity().to_hex());
        let certificates = pem::certificates(text.as_bytes()).unwrap_or_default();
        let certificates: Vec<_> =
            certificates.iter().filter_map(|der| Some(Certificate::parse(der).ok()?.identity().to_string())).collect();
        let keys = text.split("-----BEGIN ").skip(1).filter_map(|block| {
            let block = format!("-----BEGIN {block}");
            let key = pem::private_key(block.as_bytes(), None).ok()?;
            let pair = KeyPair::try_from(&key).ok()?;
            Some(Identity::of_public_key(&pair.subject_public_key_info()).to_string())
        });
        kes.chain(kms).chain(hsm).chain(certificates).chain(keys).collect()
    }

    #[test]
    fn every_key_that_a_document_shows_is_in_the_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = BTreeMap::new();
        for file in files() {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let shown = file.strip_prefix(root).expect("below it").display().to_string();
            for identity in identities(&text) {
                found.entry(identity).or_insert(shown.clone());
            }
        }
        let missing: Vec<_> = found.iter().filter(|(identity, _)| !is_published(identity)).collect();
        assert!(missing.is_empty(), "not in src/auth/published.txt: {missing:#?}");
        assert!(!found.is_empty(), "the documents show examples");
    }

    #[test]
    fn the_example_of_the_documentation_of_kes_is_in_the_list() {
        // The identity of `kes:v1:AD9E7FSYWrMD…`, which that documentation names as an administrator.
        assert!(is_published("3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22"));
        assert!(!is_published("3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd23"));
        assert!(!is_published("") && !is_published("disabled"));
    }
}
