//! Moves the keys of a transit engine of a Vault to an enclave, and back. It is a run of its own: these keys have formats
//! and settings of their own, and no key store can have them.
//!
//! Begin reading at [`Transfer`]. A key is read as the backup that a Vault gives and takes, which holds all its versions.
//! Once it is written, both sides hold the same bytes, and the Vault and the key that the enclave gives back open what the
//! other encrypts, for every version that is in use.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::glob::Choice;
use super::{Enclave, Problem, Selection, Side};
use crate::crypto::random;
use crate::crypto::transit::Kind;
use crate::keystore::vault::Engine;
use crate::keystore::{Error, Waits, patiently};
use crate::kms::transit::{Key, backup};
use crate::kms::wire::TransitKey;
use crate::name::TransitName;
use crate::telemetry::log::causes;

/// Where keys go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the Vault to the enclave.
    In,
    /// From the enclave to the Vault.
    Back,
}

/// A Vault, an enclave, and the keys to copy from one to the other.
pub struct Transfer {
    /// The Vault.
    pub engine: Engine,
    /// The enclave.
    pub enclave: Enclave,
    /// From which to which.
    pub way: Way,
    /// Which keys.
    pub selection: Selection,
    /// What the run waits for.
    pub waits: Waits,
}

/// Everything that is known before the first write.
#[derive(Debug, Default)]
pub struct Plan {
    /// The selected keys, sorted by name.
    pub keys: Vec<Planned>,
    /// Names that the pattern matches and an exclusion leaves out.
    pub excluded: Vec<String>,
}

/// A selected key.
#[derive(Debug)]
pub struct Planned {
    /// Its name.
    pub name: TransitName,
    /// What it encrypts with.
    pub kind: String,
    /// The number of its latest version.
    pub latest: u32,
    /// What the target has under the name.
    pub class: Class,
    /// Whether the run makes it exportable at the Vault, which cannot be taken back.
    pub becomes_exportable: bool,
}

/// What the target has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Nothing.
    Missing,
    /// The same key with all its versions.
    Identical,
    /// Another key.
    Different,
    /// A key. Whether it is the same is not known: at the Vault it is not exportable.
    Unknown,
}

/// Why there is no plan. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum NoPlan {
    /// A side failed, or does not allow what is needed.
    #[error("{1} cannot be used")]
    Side(#[source] Error, &'static str),
    /// There is no key.
    #[error("the source has no transit key that the pattern matches and no exclusion leaves out")]
    Empty,
    /// Keys that cannot be copied.
    #[error(transparent)]
    Unusable(super::Error),
}

impl Transfer {
    /// Checks both sides, and finds out what is to be done.
    ///
    /// # Errors
    /// When a side cannot be used, or a selected key cannot be copied.
    pub async fn plan(&self) -> Result<Plan, NoPlan> {
        let vault = |error| NoPlan::Side(error, "the Vault");
        let enclave = |error| NoPlan::Side(error, "the enclave");
        let names = patiently(&self.waits, || self.engine.names()).await.map_err(vault)?;
        self.enclave.check_transit().await.map_err(enclave)?;
        let there = self.enclave.kinds().await.map_err(enclave)?;
        let (mut plan, mut problems) = (Plan::default(), Vec::new());
        let of_source: Vec<_> = match self.way {
            Way::In => names,
            Way::Back => there.iter().filter(|(_, kind)| is_transit(kind)).map(|(name, _)| name.clone()).collect(),
        };
        for name in of_source {
            match self.selection.choose(&name) {
                Choice::Selected => match self.planned(&name, &there).await {
                    Ok(planned) => plan.keys.push(planned),
                    Err(Unplanned::Key(reason)) => problems.push(Problem { side: Side::Source, name, reason }),
                    Err(Unplanned::Side(error)) => return Err(vault(error)),
                },
                Choice::Excluded => plan.excluded.push(name),
                Choice::Ignored => {}
            }
        }
        if !problems.is_empty() {
            return Err(NoPlan::Unusable(super::Error::Unusable(problems)));
        }
        if plan.keys.is_empty() {
            return Err(NoPlan::Empty);
        }
        plan.keys.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(plan)
    }

    async fn planned(&self, name: &str, there: &BTreeMap<String, String>) -> Result<Planned, Unplanned> {
        let parsed = TransitName::parse(name).map_err(|_| {
            Unplanned::Key("an enclave cannot have this name: it has up to 80 letters, digits, '-', '_' and '.'".into())
        })?;
        let described = patiently(&self.waits, || self.engine.describe(name)).await.map_err(Unplanned::Side)?;
        if let Some(why) = described.as_ref().and_then(|key| key.refusal(is_transit)) {
            return Err(Unplanned::Key(why));
        }
        let in_enclave = there.get(name);
        if in_enclave.is_some_and(|kind| !is_transit(kind)) {
            return Err(Unplanned::Key("the enclave has a key of this name that is not a transit key".into()));
        }
        let is_open = described.as_ref().is_some_and(crate::keystore::vault::Described::is_open);
        let class = match (&described, in_enclave) {
            (Some(_), Some(_)) if is_open => {
                let in_vault = self.of_vault(&parsed).await.map_err(Unplanned::Key)?;
                let in_enclave = self.of_enclave(&parsed).await.map_err(Unplanned::Key)?;
                if is_same(&in_vault, &in_enclave) { Class::Identical } else { Class::Different }
            }
            (Some(_), Some(_)) => Class::Unknown,
            _ => Class::Missing,
        };
        let (kind, latest) = match (described, in_enclave) {
            (Some(key), _) => (key.kind, key.latest_version),
            (None, Some(kind)) => (kind.clone(), 0),
            (None, None) => return Err(Unplanned::Key("it is listed, and not there: it was deleted just now".into())),
        };
        let becomes_exportable = class == Class::Missing && !is_open;
        Ok(Planned { name: parsed, kind, latest, class, becomes_exportable })
    }

    /// Copies a key that the target does not have, and proves it.
    ///
    /// # Errors
    /// Why the target does not have the key, or not the same.
    pub async fn copy(&self, planned: &Planned) -> Result<(), String> {
        let name = &planned.name;
        match self.way {
            Way::In => {
                if planned.becomes_exportable {
                    let opened = patiently(&self.waits, || self.engine.make_exportable(name)).await;
                    opened.map_err(|error| causes(&error))?;
                }
                let key = self.of_vault(name).await?;
                self.enclave.import_transit(name, &key).await.map_err(|error| causes(&error))?;
                self.prove(name, &key, &self.of_enclave(name).await?).await
            }
            Way::Back => {
                let key = self.of_enclave(name).await?;
                let backup = backup::write(name.as_str(), &key);
                // Once: a second one would find the key of the first.
                self.engine.restore(name, &backup).await.map_err(|error| causes(&error))?;
                self.prove(name, &self.of_vault(name).await?, &key).await
            }
        }
    }

    async fn of_vault(&self, name: &TransitName) -> Result<TransitKey, String> {
        let text = patiently(&self.waits, || self.engine.backup(name)).await.map_err(|error| causes(&error))?;
        let (named, key) = backup::parse(&text).map_err(|error| error.to_string())?;
        if named == name.as_str() { Ok(key) } else { Err("the Vault gave the backup of another key".into()) }
    }

    async fn of_enclave(&self, name: &TransitName) -> Result<TransitKey, String> {
        self.enclave.export_transit(name).await.map_err(|error| causes(&error))
    }

    /// Proves that both sides have the same key.
    async fn prove(&self, name: &TransitName, vault: &TransitKey, enclave: &TransitKey) -> Result<(), String> {
        if !is_same(vault, enclave) || settings(vault) != settings(enclave) {
            return Err("both sides have a key of this name now, and not the same".into());
        }
        let key = Key::of_message(name.clone(), enclave).map_err(|malformed| malformed.to_string())?;
        let settings = *key.settings();
        for (number, _) in key.versions_from(settings.min_decryption.max(settings.min_encryption)) {
            self.prove_version(&key, number).await.map_err(|why| format!("version {number}: {why}"))?;
        }
        Ok(())
    }

    /// Has each side open what the other encrypts.
    async fn prove_version(&self, key: &Key, number: u32) -> Result<(), String> {
        let mut message = Zeroizing::new([0; 32]);
        random::fill(&mut *message).map_err(|error| error.to_string())?;
        let context = key.settings().derived.then_some(&b"claviger migrate: proof of a key"[..]);
        let encrypted = patiently(&self.waits, || self.engine.encrypt(key.name(), number, context, &*message)).await;
        let encrypted = encrypted.map_err(|error| causes(&error))?;
        let opened = key.decrypt(&encrypted, context, b"");
        if !opened.is_ok_and(|opened| opened.as_slice() == message.as_slice()) {
            return Err("what the Vault encrypts does not open with the key of the enclave".into());
        }
        let (_, ours) =
            key.encrypt(i64::from(number), context, b"", &*message).map_err(|refused| refused.to_string())?;
        let opened = patiently(&self.waits, || self.engine.decrypt(key.name(), &ours, context)).await;
        match opened.map_err(|error| causes(&error))? {
            Some(opened) if opened.as_slice() == message.as_slice() => Ok(()),
            _ => Err("what the key of the enclave encrypts does not open at the Vault".into()),
        }
    }

    /// Copies all keys that the target lacks, until it is told to stop. An answer for each key of the plan, in order.
    pub async fn run(&self, plan: &Plan, stop: &CancellationToken) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(plan.keys.len());
        for planned in &plan.keys {
            outcomes.push(match planned.class {
                Class::Identical => Outcome::Identical,
                Class::Different | Class::Unknown => Outcome::Left,
                Class::Missing if stop.is_cancelled() => Outcome::NotReached,
                Class::Missing => self.copy(planned).await.map_or_else(Outcome::Failed, |()| Outcome::Copied),
            });
        }
        outcomes
    }
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was written, and proven.
    Copied,
    /// The target had it.
    Identical,
    /// The target has another key of this name, or maybe.
    Left,
    /// For this reason it is not there, or not proven.
    Failed(String),
    /// The run was interrupted before.
    NotReached,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copied => "copied",
            Self::Identical => "identical",
            Self::Left => "left",
            Self::Failed(_) => "failed",
            Self::NotReached => "not reached",
        })
    }
}

/// Why a key is not in the plan.
enum Unplanned {
    /// It cannot be copied.
    Key(String),
    /// The Vault failed.
    Side(Error),
}

fn is_transit(kind: &str) -> bool {
    Kind::parse(kind).is_some()
}

/// Whether both are the same key with the same versions.
fn is_same(one: &TransitKey, other: &TransitKey) -> bool {
    let first = |key: &TransitKey| key.min_available.max(1);
    let same = one.versions.iter().zip(&other.versions).all(|(one, other)| {
        use subtle::ConstantTimeEq as _;
        bool::from(one.key.ct_eq(&other.key) & one.hmac_key.ct_eq(&other.hmac_key))
    });
    (&one.kind, one.derived, first(one), one.versions.len())
        == (&other.kind, other.derived, first(other), other.versions.len())
        && same
}

fn settings(key: &TransitKey) -> (bool, u32, u32) {
    (key.deletion_allowed, key.min_decryption, key.min_encryption)
}
