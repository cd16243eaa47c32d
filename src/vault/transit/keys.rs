//! Transit keys: made, shown, changed, removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crypto::transit::Kind;
use crate::kms::transit::{Change, Config, Key, What};
use crate::kms::{self, Action, Entry};
use crate::server::{Error, Reply};
use crate::vault::State;
use crate::vault::body::{self, Flag, Number, Seconds, Text};
use crate::vault::reply::{self, bad, refused as of};
use crate::vault::target::page;

/// A key, as clients read it.
#[derive(Serialize)]
struct Shown<'k> {
    name: &'k str,
    #[serde(rename = "type")]
    kind: &'static str,
    derived: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kdf: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    convergent_encryption: Option<bool>,
    deletion_allowed: bool,
    exportable: bool,
    allow_plaintext_backup: bool,
    imported_key: bool,
    soft_deleted: bool,
    auto_rotate_period: u64,
    latest_version: u32,
    min_available_version: u32,
    min_decryption_version: u32,
    min_encryption_version: u32,
    supports_encryption: bool,
    supports_decryption: bool,
    supports_derivation: bool,
    supports_signing: bool,
    keys: BTreeMap<u32, i64>,
}

fn show(key: &Key) -> Reply {
    let settings = key.settings();
    let versions = key.versions_from(settings.min_decryption);
    let keys: BTreeMap<_, _> =
        versions.map(|(number, version)| (number, version.created_at().unix_timestamp())).collect();
    let size = 768 + 24 * keys.len();
    let shown = Shown {
        name: key.name().as_str(),
        kind: settings.kind.as_str(),
        derived: settings.derived,
        kdf: settings.derived.then_some("hkdf_sha256"),
        convergent_encryption: settings.derived.then_some(false),
        deletion_allowed: settings.deletion_allowed,
        exportable: false,
        allow_plaintext_backup: false,
        imported_key: false,
        soft_deleted: false,
        auto_rotate_period: 0,
        latest_version: key.latest(),
        min_available_version: settings.min_available,
        min_decryption_version: settings.min_decryption,
        min_encryption_version: settings.min_encryption,
        supports_encryption: true,
        supports_decryption: true,
        supports_derivation: true,
        supports_signing: false,
        keys,
    };
    reply::data(shown, size)
}

/// Shows a key.
pub(super) fn read(entry: &Entry, name: &str) -> Result<Reply, Error> {
    entry.key(name).map(|key| show(key)).ok_or_else(reply::not_there)
}

/// Lists the names that the caller may list.
pub(in crate::vault) async fn list(entry: &Entry, query: &str) -> Result<Reply, Error> {
    let (after, limit) = page(query);
    reply::names(&entry.names(&after, limit).await)
}

/// The settings of a key, in requests that make one and that change one.
#[derive(Debug, Deserialize)]
struct Settings<'b> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'b>>,
    derived: Option<Flag>,
    convergent_encryption: Option<Flag>,
    exportable: Option<Flag>,
    allow_plaintext_backup: Option<Flag>,
    auto_rotate_period: Option<Seconds>,
    deletion_allowed: Option<Flag>,
    min_decryption_version: Option<Number>,
    min_encryption_version: Option<Number>,
    min_available_version: Option<Number>,
}

impl Settings<'_> {
    /// Refuses what would not be kept.
    fn check(&self) -> Result<(), Error> {
        let is_on = |flag: Option<Flag>| flag == Some(Flag(true));
        for (is_wanted, what) in [
            (is_on(self.exportable), "exportable"),
            (is_on(self.allow_plaintext_backup), "allow_plaintext_backup"),
            (is_on(self.convergent_encryption), "convergent_encryption"),
            (self.auto_rotate_period.is_some_and(|period| period.0 > 0), "auto_rotate_period"),
        ] {
            if is_wanted {
                return Err(bad(format!("{what} is not supported")));
            }
        }
        Ok(())
    }
}

/// Makes a key. One that exists stays as it is.
pub(super) async fn create(state: &State, entry: &Entry, name: &str, body: &[u8]) -> Result<Reply, Error> {
    let settings: Settings<'_> = body::parse(body)?;
    settings.check()?;
    let kind = settings.kind.as_deref().unwrap_or(Kind::Aes256Gcm.as_str());
    let kind = Kind::parse(kind).ok_or_else(|| bad(format!("unknown key type {}", crate::foreign::cut(kind, 64))))?;
    let derived = settings.derived.is_some_and(|flag| flag.0);
    change(state, entry, Action::KeyCreate, name, What::Create { kind, derived }).await.map_err(
        |error| match error {
            kms::Error::KeyExists => bad("the enclave has a key of this name that is not a transit key"),
            error => of(error),
        },
    )?;
    // Without a body, as in older Vaults: a gateway takes one for a failure.
    Ok(reply::nothing())
}

/// Changes the settings of a key.
pub(super) async fn configure(state: &State, entry: &Entry, name: &str, body: &[u8]) -> Result<Reply, Error> {
    let settings: Settings<'_> = body::parse(body)?;
    settings.check()?;
    let config = Config {
        min_decryption: settings.min_decryption_version.map(|number| number.0),
        min_encryption: settings.min_encryption_version.map(|number| number.0),
        deletion_allowed: settings.deletion_allowed.map(|flag| flag.0),
    };
    let changes_minima = config.min_decryption.is_some() || config.min_encryption.is_some();
    let actions = [
        (config.deletion_allowed.is_some(), Action::KeyDelete),
        (changes_minima || config.deletion_allowed.is_none(), Action::KeyCreate),
    ];
    let wanted: Vec<_> = actions.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, action)| action).collect();
    if !wanted.iter().all(|action| entry.allows(*action, name)) {
        return Err(reply::denied());
    }
    change(state, entry, wanted[0], name, What::Configure(config)).await.map_err(|error| match error {
        kms::Error::NoKey => bad(format!("no existing key named {name} could be found")),
        error => of(error),
    })?;
    Ok(reply::nothing())
}

/// Adds a version to a key.
pub(super) async fn rotate(state: &State, entry: &Entry, name: &str) -> Result<Reply, Error> {
    change(state, entry, Action::KeyCreate, name, What::Rotate).await.map_err(|error| match error {
        kms::Error::NoKey => bad("key not found"),
        error => of(error),
    })?;
    shown_again(state, entry, name)
}

/// Removes old versions of a key.
pub(super) async fn trim(state: &State, entry: &Entry, name: &str, body: &[u8]) -> Result<Reply, Error> {
    let settings: Settings<'_> = body::parse(body)?;
    let first = settings.min_available_version.ok_or_else(|| bad("missing min_available_version"))?;
    change(state, entry, Action::KeyDelete, name, What::Trim(first.0)).await.map_err(|error| match error {
        kms::Error::NoKey => bad("invalid key name"),
        error => of(error),
    })?;
    shown_again(state, entry, name)
}

/// Removes a key.
pub(super) async fn delete(state: &State, entry: &Entry, name: &str) -> Result<Reply, Error> {
    change(state, entry, Action::KeyDelete, name, What::Delete).await.map_err(|error| match error {
        kms::Error::NoKey => bad(format!("error deleting policy {name}: could not delete key; not found")),
        kms::Error::Invalid(reason) => bad(format!("error deleting policy {name}: {reason}")),
        error => of(error),
    })?;
    Ok(reply::nothing())
}

async fn change(state: &State, entry: &Entry, action: Action, name: &str, what: What) -> Result<(), kms::Error> {
    state.kms.change_transit(entry, action, Change { name: name.to_owned(), what }).await
}

/// A key after a change.
fn shown_again(state: &State, entry: &Entry, name: &str) -> Result<Reply, Error> {
    let now = state.kms.enter(entry.enclave(), entry.caller()).map_err(|_| reply::denied())?;
    read(&now, name)
}
