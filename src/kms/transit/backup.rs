//! Backups of a transit key, as `GET transit/backup/<key>` of a Vault gives them and `restore` takes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde::{Deserializer, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::crypto::base64;
use crate::crypto::buffer::Buffer;
use crate::crypto::transit::Kind;
use crate::kms::wire::{TransitKey, TransitVersion};
use crate::moment;

/// Why a backup is not taken. It quotes nothing of the backup but names and numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither the base64 of a backup nor JSON.
    #[error("it is not the backup of a transit key: neither its base64 nor its JSON")]
    Format,
    /// The kind of the key.
    #[error(
        "keys of type {0} are not supported, only aes256-gcm96 (0), aes128-gcm96 (8) and chacha20-poly1305 (5); \
         leave this key in the Vault"
    )]
    Kind(u64),
    /// A setting that changes the format.
    #[error("the key has {0}, which is not supported; leave it in the Vault")]
    Setting(&'static str),
    /// A version is missing.
    #[error("version {0} is missing in the backup")]
    Missing(u32),
}

/// The text of a backup, or what a command shows of the request.
#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    backup: Secret,
}

/// A text that is wiped.
#[derive(Clone)]
struct Secret(Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A backup, without what does not matter.
#[derive(Debug, Serialize, Deserialize)]
struct Backup {
    policy: Policy,
    archived_keys: Archive,
}

#[derive(Debug, Serialize, Deserialize)]
struct Policy {
    name: String,
    #[serde(rename = "type")]
    kind: u64,
    #[serde(default)]
    keys: BTreeMap<u32, Entry>,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    kdf: u64,
    #[serde(default)]
    convergent_encryption: bool,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(default)]
    deletion_allowed: bool,
    #[serde(default)]
    min_decryption_version: u32,
    #[serde(default)]
    min_encryption_version: u32,
    #[serde(default)]
    min_available_version: u32,
    latest_version: u32,
    #[serde(default)]
    archive_version: u32,
    #[serde(default)]
    archive_min_version: u32,
    #[serde(default)]
    version_template: String,
    #[serde(default)]
    soft_deleted: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Archive {
    #[serde(default)]
    keys: Option<Vec<Entry>>,
}

/// A version. Of an asymmetric key it has other fields.
#[derive(Default, Clone, Serialize, Deserialize)]
struct Entry {
    #[serde(default)]
    key: Option<Secret>,
    #[serde(default)]
    hmac_key: Option<Secret>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    creation_time: i64,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry(redacted)")
    }
}

/// HKDF-SHA-256, the way in which keys are derived.
const HKDF: u64 = 1;

/// Reads a backup: its base64, its JSON, or the answer that holds it. Returns the key and its name in the Vault.
///
/// # Errors
/// When it is none, or of a key that cannot be kept here.
pub fn parse(text: &[u8]) -> Result<(String, TransitKey), Error> {
    let text = text.trim_ascii();
    let decoded = match serde_json::from_slice::<Answer>(text) {
        Ok(answer) => base64::decode(answer.data.backup.0.as_bytes()),
        Err(_) if text.starts_with(b"{") => Some(Zeroizing::new(text.to_vec())),
        Err(_) => base64::decode(text),
    };
    let json = decoded.ok_or(Error::Format)?;
    let backup: Backup = serde_json::from_slice(&json).map_err(|_| Error::Format)?;
    let name = backup.policy.name.clone();
    backup.into_key().map(|key| (name, key))
}

impl Backup {
    fn into_key(self) -> Result<TransitKey, Error> {
        let policy = &self.policy;
        let kind = Kind::of_number(policy.kind).ok_or(Error::Kind(policy.kind))?;
        for (is_set, what) in [
            (policy.convergent_encryption, "convergent encryption"),
            (!policy.version_template.is_empty(), "a version template"),
            (policy.soft_deleted, "been soft-deleted"),
            (policy.derived && policy.kdf != HKDF, "an old way of key derivation"),
        ] {
            if is_set {
                return Err(Error::Setting(what));
            }
        }
        let first = policy.min_available_version.max(1);
        // A hostile number must not make the list long.
        if policy.latest_version < first || policy.latest_version - first > 1_000_000 {
            return Err(Error::Format);
        }
        let versions = (first..=policy.latest_version).map(|number| self.version(number));
        Ok(TransitKey {
            kind: kind.as_str().to_owned(),
            derived: policy.derived,
            deletion_allowed: policy.deletion_allowed,
            min_decryption: policy.min_decryption_version.max(1),
            min_encryption: policy.min_encryption_version,
            min_available: policy.min_available_version,
            versions: versions.collect::<Result<_, _>>()?,
        })
    }

    /// A version: of those in use, else of the archive, which has all that were not trimmed.
    fn version(&self, number: u32) -> Result<TransitVersion, Error> {
        let archived = || {
            let at = number.checked_sub(self.policy.archive_min_version)?;
            self.archived_keys.keys.as_ref()?.get(usize::try_from(at).ok()?)
        };
        let entry = self.policy.keys.get(&number).or_else(archived).ok_or(Error::Missing(number))?;
        let bytes = |text: &Option<Secret>| {
            let text = text.as_ref().filter(|text| !text.0.is_empty())?;
            base64::decode(text.0.as_bytes())
        };
        let (key, hmac_key) = (bytes(&entry.key), bytes(&entry.hmac_key));
        let (mut key, mut hmac_key) = key.zip(hmac_key).ok_or(Error::Missing(number))?;
        let written = entry.time.as_deref().and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        let written = written.and_then(moment::writable);
        let created_at = written.or_else(|| moment::of_unix(entry.creation_time, 0));
        Ok(TransitVersion {
            key: std::mem::take(&mut *key),
            hmac_key: std::mem::take(&mut *hmac_key),
            created_at: created_at.map(Into::into),
            created_by: String::new(),
        })
    }
}

/// The backup of a key, for `POST transit/restore/<key> {"backup": …}` at a Vault. There the key is exportable: it has
/// been in plain text.
pub fn write(name: &str, key: &TransitKey) -> Zeroizing<String> {
    let first = key.min_available.max(1);
    let entries: Vec<_> = key.versions.iter().map(entry).collect();
    let latest = first + u32::try_from(entries.len()).unwrap_or(u32::MAX).saturating_sub(1);
    let numbered = (first..).zip(entries.iter().cloned());
    let archive_min_version = if first > 1 { first } else { 0 };
    let begin = if first > 1 { Vec::new() } else { vec![Entry::default()] };
    let policy = Policy {
        name: name.to_owned(),
        kind: Kind::parse(&key.kind).map_or(0, Kind::number),
        keys: numbered.filter(|(number, _)| *number >= key.min_decryption).collect(),
        derived: key.derived,
        kdf: if key.derived { HKDF } else { 0 },
        convergent_encryption: false,
        exportable: true,
        allow_plaintext_backup: true,
        deletion_allowed: key.deletion_allowed,
        min_decryption_version: key.min_decryption,
        min_encryption_version: key.min_encryption,
        min_available_version: key.min_available,
        latest_version: latest,
        archive_version: latest,
        archive_min_version,
        version_template: String::new(),
        soft_deleted: false,
    };
    let backup = Backup { policy, archived_keys: Archive { keys: Some(begin.into_iter().chain(entries).collect()) } };
    // Its full size at once: every version stands in it twice.
    let mut json = Buffer::with_capacity(1_024 + 512 * key.versions.len());
    serde_json::to_writer(&mut json, &backup).expect("it is made of texts and numbers");
    base64::encode(&json.into_inner())
}

fn entry(version: &TransitVersion) -> Entry {
    let created_at = version.created_at.unwrap_or_default().to_time();
    Entry {
        key: Some(Secret(base64::encode(&version.key))),
        hmac_key: Some(Secret(base64::encode(&version.hmac_key))),
        time: created_at.format(&Rfc3339).ok(),
        creation_time: created_at.unix_timestamp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(versions: u8, min_available: u32) -> TransitKey {
        let version = |byte: u8| TransitVersion {
            key: vec![byte; 32],
            hmac_key: vec![byte + 100; 32],
            created_at: Some(OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("in range").into()),
            created_by: String::new(),
        };
        let first = min_available.max(1);
        TransitKey {
            kind: "aes256-gcm96".into(),
            derived: true,
            deletion_allowed: true,
            min_decryption: first + 1,
            min_encryption: first + 1,
            min_available,
            versions: (0..versions).map(version).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for min_available in [0, 1, 3] {
            let key = key(4, min_available);
            let backup = write("my.key", &key);
            let json = base64::decode(backup.as_bytes()).expect("base64");
            let answer = format!(r#"{{"request_id":"x","data":{{"backup":"{}"}}}}"#, *backup);
            for text in [backup.as_bytes(), &json, answer.as_bytes(), format!("{}\n", *backup).as_bytes()] {
                assert_eq!(parse(text), Ok(("my.key".to_owned(), key.clone())), "{min_available}");
            }
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_the_reason() {
        let json = base64::decode(write("k", &key(2, 0)).as_bytes()).expect("base64");
        let json = String::from_utf8(json.to_vec()).expect("text");
        for (from, to, why) in [
            (r#""type":0"#, r#""type":11"#, Error::Kind(11)),
            (
                r#""convergent_encryption":false"#,
                r#""convergent_encryption":true"#,
                Error::Setting("convergent encryption"),
            ),
            (r#""kdf":1"#, r#""kdf":0"#, Error::Setting("an old way of key derivation")),
            (r#""version_template":"""#, r#""version_template":"x""#, Error::Setting("a version template")),
            (r#""latest_version":2"#, r#""latest_version":3"#, Error::Missing(3)),
            (r#""latest_version":2"#, r#""latest_version":4294967295"#, Error::Format),
            (r#""latest_version":2"#, r#""latest_version":0"#, Error::Format),
        ] {
            assert!(json.contains(from), "{from}");
            assert_eq!(parse(json.replace(from, to).as_bytes()), Err(why), "{to}");
        }
        for nonsense in ["", "{}", "AAAA", "x y", r#"{"data":{"backup":"?"}}"#] {
            assert_eq!(parse(nonsense.as_bytes()), Err(Error::Format), "{nonsense}");
        }
    }
}
