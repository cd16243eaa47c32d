//! A sealed value as a key store holds it. It names the provider that can open it. `docs/formats.md` has the format.

use serde::{Deserialize, Serialize};

use crate::crypto::{Blob, Sealer, SecretKey, base64};
use crate::keystore::Error;
use crate::name::KeyName;

/// The only field of the JSON object. It distinguishes a sealed value from a stored key.
const MARK: &str = "claviger_sealed";

/// The version that is written and read.
const VERSION: u32 = 1;

/// A sealed value. Nothing in it is secret.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// The `kind` of the provider that wrapped the data key.
    pub(super) provider: String,
    /// The provider's key that wrapped it.
    pub(super) key: String,
    /// The wrapped data key.
    pub(super) data_key: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marked<R> {
    claviger_sealed: R,
}

/// A data key that a provider has wrapped.
#[derive(Debug)]
pub(super) struct Wrapped {
    /// The provider's key that wrapped it.
    pub(super) key: String,
    /// The wrapped data key.
    pub(super) data_key: String,
}

impl Record {
    /// Parses a stored value; `None` when it is not sealed.
    ///
    /// # Errors
    /// When it is marked as sealed but cannot be parsed.
    pub(super) fn parse(stored: &Blob) -> Result<Option<Self>, Error> {
        let text = stored.expose();
        let is_marked = text.trim_ascii_start().starts_with(b"{") && holds(text, MARK.as_bytes());
        // The text of a stored key may contain the mark, for example as its owner, but has other fields.
        if !is_marked || serde_json::from_slice::<Marked<serde::de::IgnoredAny>>(text).is_err() {
            return Ok(None);
        }
        let Marked { claviger_sealed: record } = serde_json::from_slice::<Marked<Self>>(text)
            .map_err(|error| Error::Failed(format!("the sealed value is damaged: {error}").into()))?;
        if record.version != VERSION {
            let version = record.version;
            let message = format!("the value is sealed in format {version}, which only a newer program reads");
            return Err(Error::Failed(message.into()));
        }
        let fields = [&record.provider, &record.key, &record.data_key];
        if fields.iter().any(|field| field.is_empty() || field.contains('\n')) {
            return Err(Error::Failed("the sealed value is damaged: a field is empty or has two lines".into()));
        }
        Ok(Some(record))
    }

    /// Seals `value` for the entry `name`.
    pub(super) fn seal(
        provider: &str,
        wrapped: Wrapped,
        name: &KeyName,
        data_key: SecretKey,
        value: &Blob,
    ) -> Result<Self, Error> {
        let Wrapped { key, data_key: wrapped } = wrapped;
        let mut record =
            Self { version: VERSION, provider: provider.into(), key, data_key: wrapped, value: String::new() };
        let sealed = Sealer::new(data_key).seal(value.expose(), &record.place(name));
        record.value = base64::encode(&sealed.map_err(|error| Error::Failed(error.into()))?).to_string();
        Ok(record)
    }

    /// The value, if `data_key` opens it under this name.
    pub(super) fn open(&self, name: &KeyName, data_key: SecretKey) -> Option<Blob> {
        let sealed = base64::decode(self.value.as_bytes())?;
        Sealer::new(data_key).open(&sealed, &self.place(name)).ok().map(Blob::from)
    }

    /// The text to be stored.
    pub(super) fn to_blob(&self) -> Blob {
        serde_json::to_vec(&Marked { claviger_sealed: self }).expect("texts have a JSON form").into()
    }

    /// The key that can open it: "local key 8d2f…", "transit key transit/minio, version 3".
    pub(super) fn label(&self) -> String {
        let version = self.data_key.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
        let version = version.map_or_else(String::new, |(version, _)| format!(", version {version}"));
        format!("{} key {}{version}", self.provider, self.key)
    }

    /// The section below `keystore.encrypt` that such a provider has.
    pub(super) fn section(&self) -> &'static str {
        match self.provider.as_str() {
            "local" => "local",
            "transit" => "vault",
            "aws-kms" => "aws",
            "pkcs11" => "pkcs11",
            _ => "… of a newer program",
        }
    }

    /// The associated data that the value is bound to.
    fn place(&self, name: &KeyName) -> Vec<u8> {
        let Self { version, provider, key, data_key, .. } = self;
        format!("claviger sealed {version}\n{provider}\n{key}\n{data_key}\n{name}\n").into_bytes()
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
