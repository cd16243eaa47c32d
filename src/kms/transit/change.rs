//! Changes of transit keys, as clients of the Vault-compatible API ask for them, and with the words of Vault for what is
//! refused.

use std::borrow::Cow;

use super::{Key, Version};
use crate::crypto::transit::Kind;
use crate::kms::Error;
use crate::kms::draft::Author;

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The name of the key.
    pub name: String,
    /// What becomes of it.
    pub what: What,
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is made. One that exists stays as it is, whatever kind is asked for.
    Create {
        /// What it encrypts with.
        kind: Kind,
        /// Whether each context has a key of its own.
        derived: bool,
    },
    /// It gets one more version.
    Rotate,
    /// Its settings are changed.
    Configure(Config),
    /// The versions before this one are removed.
    Trim(i64),
    /// It is removed, if its settings allow that.
    Delete,
}

/// Settings to change; none: as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Config {
    /// The first version that still decrypts.
    pub min_decryption: Option<i64>,
    /// The first version that still encrypts.
    pub min_encryption: Option<i64>,
    /// Whether clients may delete the key.
    pub deletion_allowed: Option<bool>,
}

impl What {
    /// Details for the log.
    pub(in crate::kms) fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::Create { kind, derived: false } => format!("transit {}", kind.as_str()).into(),
            Self::Create { kind, derived: true } => format!("transit {}, derived", kind.as_str()).into(),
            Self::Rotate => "new version".into(),
            Self::Configure(_) => "settings".into(),
            Self::Trim(first) => format!("versions before {first}").into(),
            Self::Delete => "all versions".into(),
        }
    }
}

impl Key {
    /// The same key with one more version, which is random.
    pub(in crate::kms) fn rotated(&self, author: Author) -> Result<Self, Error> {
        self.with(Version::generate(self.settings.kind, author.now, author.caller.to_string())?)
    }

    /// The same key with other settings.
    ///
    /// # Errors
    /// When they do not fit.
    pub(in crate::kms) fn configured(&self, config: Config) -> Result<Self, Error> {
        let (mut key, latest) = (self.clone(), self.latest());
        let settings = &mut key.settings;
        let number = |number: i64, what: &str| {
            if number < 0 {
                return Err(Error::invalid(format!("min {what} version cannot be negative")));
            }
            let too_high = format!("cannot set min {what} version of {number}, latest key version is {latest}");
            u32::try_from(number).ok().filter(|number| *number <= latest).ok_or_else(|| Error::invalid(too_high))
        };
        if let Some(min) = config.min_decryption {
            // Versions begin at 1.
            settings.min_decryption = number(min, "decryption")?.max(1);
        }
        if let Some(min) = config.min_encryption {
            settings.min_encryption = number(min, "encryption")?;
        }
        settings.deletion_allowed = config.deletion_allowed.unwrap_or(settings.deletion_allowed);
        let (decryption, encryption) = (settings.min_decryption, settings.min_encryption);
        if encryption > 0 && encryption < decryption {
            return Err(Error::invalid(format!(
                "cannot set min encryption/decryption values; min encryption version of {encryption} must be greater \
                 than or equal to min decryption version of {decryption}"
            )));
        }
        if settings.min_available > encryption {
            return Err(Error::invalid("min encryption version should not be less than min available version"));
        }
        if settings.min_available > decryption {
            return Err(Error::invalid("min decryption version should not be less then min available version"));
        }
        Ok(key)
    }

    /// The same key without the versions before this one.
    ///
    /// # Errors
    /// When one of these may still be used.
    pub(in crate::kms) fn trimmed(&self, first: i64) -> Result<Self, Error> {
        let settings = &self.settings;
        let refuse = |why: &'static str| Err(Error::invalid(why));
        if first < i64::from(settings.min_available) {
            return refuse("minimum available version cannot be decremented");
        }
        if settings.min_encryption == 0 {
            return refuse("minimum available version cannot be set when minimum encryption version is not set");
        }
        if first > i64::from(settings.min_encryption) {
            return refuse("minimum available version cannot be greater than minimum encryption version");
        }
        if first > i64::from(settings.min_decryption) {
            return refuse("minimum available version cannot be greater than minimum decryption version");
        }
        let mut key = self.clone();
        key.settings.min_available = u32::try_from(first).expect("it is not higher than a version");
        let gone = key.first().saturating_sub(self.first());
        key.versions.drain(..usize::try_from(gone).unwrap_or(usize::MAX).min(self.versions.len() - 1));
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::name::TransitName;

    fn key(versions: u32) -> Key {
        let made = || Version::generate(Kind::Aes256Gcm, OffsetDateTime::UNIX_EPOCH, String::new()).expect("random");
        let mut key = Key::new(TransitName::parse("k").expect("a name"), false, made());
        for _ in 1..versions {
            key = key.with(made()).expect("rotated");
        }
        key
    }

    fn minima(decryption: i64, encryption: i64) -> Config {
        Config { min_decryption: Some(decryption), min_encryption: Some(encryption), deletion_allowed: None }
    }

    #[test]
    fn old_versions_are_closed_and_then_trimmed() {
        let key = key(4);
        let (_, first) = key.encrypt(1, None, b"", b"m").expect("encrypted");
        let (_, third) = key.encrypt(3, None, b"", b"m").expect("encrypted");
        let closed = key.configured(minima(3, 3)).expect("configured");
        assert!(closed.decrypt(&first, None, b"").is_err() && closed.decrypt(&third, None, b"").is_ok());
        assert!(closed.encrypt(2, None, b"", b"m").is_err() && closed.encrypt(3, None, b"", b"m").is_ok());
        // It can be opened again as long as nothing is trimmed.
        assert!(closed.configured(minima(1, 0)).expect("configured").decrypt(&first, None, b"").is_ok());
        let trimmed = closed.trimmed(3).expect("trimmed");
        assert_eq!(trimmed.versions_from(0).map(|(number, _)| number).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((trimmed.latest(), trimmed.version(2).is_none()), (4, true));
        assert!(trimmed.decrypt(&third, None, b"").is_ok());
        for refused in [minima(2, 3), minima(3, 0), minima(2, 2)] {
            assert!(trimmed.configured(refused).is_err(), "{refused:?}");
        }
        let again = Key::of_message(trimmed.name().clone(), &trimmed.to_message()).expect("a key");
        assert_eq!((again.latest(), again.to_message()), (4, trimmed.to_message()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_the_words_of_vault() {
        let key = key(2);
        for (config, why) in [
            (minima(5, 0), "cannot set min decryption version of 5, latest key version is 2"),
            (minima(1, 5), "cannot set min encryption version of 5, latest key version is 2"),
            (minima(-1, 0), "min decryption version cannot be negative"),
            (minima(i64::MAX, 0), "cannot set min decryption version of 9223372036854775807, latest key version is 2"),
        ] {
            assert_eq!(key.configured(config).expect_err("refused").to_string(), why);
        }
        assert!(key.configured(minima(2, 1)).is_err());
        assert_eq!(key.configured(minima(0, 0)).expect("configured").settings().min_decryption, 1);
        for first in [-1, 1, 2, 3] {
            assert!(key.trimmed(first).is_err(), "{first}");
        }
        let closed = key.configured(minima(2, 2)).expect("configured");
        assert!(closed.trimmed(3).is_err() && closed.trimmed(0).is_ok());
        assert!(closed.trimmed(2).expect("trimmed").trimmed(1).is_err());
    }
}
