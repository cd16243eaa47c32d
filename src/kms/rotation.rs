//! Rotation by age: keys whose latest version is too old get a new one, by themselves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;

use super::command::Change;
use super::draft::{Author, Right};
use super::snapshot::{Enclave, Snapshot};
use super::turn::Turn;
use super::wire::CreateKeyRequest;
use super::writer::Order;
use super::{Action, Error, State};
use crate::duration;
use crate::name::{EnclaveName, KeyName};
use crate::telemetry::metrics::Text;

/// The lowest age: every version stays in the key for ever.
const LEAST: Duration = Duration::from_secs(3_600);

/// How many keys are rotated at a time. The writer writes them together.
const TOGETHER: usize = 64;

/// The `rotation:` section of the key manager's config: ages by enclave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Rules(BTreeMap<EnclaveName, Ages>);

/// The ages of the keys of an enclave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ages {
    /// Of all keys that have none of their own.
    after: Age,
    keys: BTreeMap<KeyName, Age>,
}

/// The age at which a key gets a new version; none: at no age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Age(Option<Duration>);

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        match duration::parse(&text).map_err(D::Error::custom)? {
            age if age < LEAST => Err(D::Error::custom("must be 'off', or at least 1h")),
            age => Ok(Self(Some(age))),
        }
    }
}

impl Rules {
    /// Whether no key is ever rotated.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys whose latest versions are too old, by their enclaves.
    async fn due(&self, snapshot: &Snapshot, now: OffsetDateTime) -> Vec<(EnclaveName, KeyName)> {
        let (mut due, mut turn) = (Vec::new(), Turn::new());
        for (name, ages) in &self.0 {
            let Some(enclave) = snapshot.enclave(name.as_str()).filter(|enclave| enclave.is_kept().is_ok()) else {
                continue;
            };
            due.extend(ages.due(enclave, now, &mut turn).await.into_iter().map(|key| (name.clone(), key)));
        }
        due
    }
}

impl Ages {
    async fn due(&self, enclave: &Enclave, now: OffsetDateTime, turn: &mut Turn) -> Vec<KeyName> {
        let mut due = Vec::new();
        for ring in enclave.keys.values() {
            let Age(age) = self.keys.get(&ring.name).copied().unwrap_or(self.after);
            if ring.retired().is_empty() && age.is_some_and(|age| now - ring.latest().1.key.created_at() >= age) {
                due.push(ring.name.clone());
            }
            turn.step().await;
        }
        due
    }
}

/// What came of rotations so far.
#[derive(Debug, Default)]
pub(super) struct Rotated {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Rotated {
    /// Writes the counters.
    pub(super) fn write(&self, text: &mut Text) {
        let (done, failed) = (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        text.counter("claviger_kms_rotations_total", "Keys that got a new version because of their age.", done);
        let help = "Keys that should have got a new version because of their age, and did not.";
        text.counter("claviger_kms_rotation_failures_total", help, failed);
    }
}

impl State {
    /// Gives a new version to every key that is older than `rules` allow.
    pub async fn rotate(&self, rules: &Rules, now: OffsetDateTime) {
        // In a cluster one server does it: the first of those that are there.
        if let Some(node) = self.writer.node() {
            let first = node.live().await.ok().and_then(|live| live.keys().next().copied());
            if first != Some(node.number) || node.confirm().await.is_err() {
                return;
            }
        }
        let due = rules.due(&self.writer.snapshot(), now).await;
        let outcomes = stream::iter(due).map(|key| async move { (self.rotate_key(&key, now).await, key) });
        let mut outcomes = outcomes.buffer_unordered(TOGETHER);
        let mut done = BTreeMap::<EnclaveName, u64>::new();
        while let Some((outcome, (enclave, name))) = outcomes.next().await {
            match outcome {
                Ok(()) => *done.entry(enclave).or_default() += 1,
                // Somebody has deleted it meanwhile.
                Err(Error::NoKey | Error::NoEnclave) => {}
                Err(error) => {
                    self.rotated.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%enclave, key = %name, %error, "a key is due for rotation and was not rotated");
                }
            }
        }
        for (enclave, count) in done {
            self.rotated.done.fetch_add(count, Ordering::Relaxed);
            tracing::info!(%enclave, count, "keys got a new version because of their age");
        }
    }

    async fn rotate_key(&self, (enclave, name): &(EnclaveName, KeyName), now: OffsetDateTime) -> Result<(), Error> {
        // The config of the server allows it, in the name of its administrator.
        let author = Author { caller: self.writer.snapshot().admin, now, right: Right::Listener };
        let request = CreateKeyRequest { name: name.to_string(), add_version: true, ..CreateKeyRequest::default() };
        let commands = vec![(Action::KeyCreate, Change::KeyCreate(request))];
        self.writer.apply(Order { author, enclave: enclave.to_string(), commands, size: 0 }).await
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer as _;

    use super::*;

    #[test]
    fn ages_are_durations_of_an_hour_and_more_or_off() {
        let parse = |text: &str| -> Result<Age, serde::de::value::Error> { Age::deserialize(text.into_deserializer()) };
        assert_eq!(parse("off"), Ok(Age(None)));
        assert_eq!(parse("2160h"), Ok(Age(Some(Duration::from_secs(2_160 * 3_600)))));
        for bad in ["0s", "59m", "30", "-2h", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
