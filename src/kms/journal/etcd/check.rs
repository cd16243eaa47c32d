//! What is looked at before a journal is used.

use super::layout::{Place, end_of};
use super::{Config, Etcd};
use crate::etcd;
use crate::etcd::message::{
    Compare, Comparison, DeleteRangeRequest, MemberListRequest, Operand, PutRequest, RangeRequest, Request,
    StatusRequest, StatusResponse, TxnRequest,
};
use crate::foreign::{cut, printable};
use crate::telemetry::log;

/// How many keys of others are looked for.
const SOME: i64 = 100;

/// The first patches of each release without the known faults of watches.
const SOUND: [(u32, u32, u32); 2] = [(3, 5, 22), (3, 6, 2)];

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It does not answer. It may pass by itself.
    #[error("{0}")]
    Unreachable(String),
    /// The config, or etcd, has to be changed.
    #[error("{0}")]
    Wrong(String),
}

impl Etcd {
    /// Connects, and does what [`Etcd::check`] does. Returns what works and is dangerous.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn connect(config: &Config) -> Result<(Self, Vec<String>), Refusal> {
        let journal = Self::new(config).map_err(|error| Refusal::Wrong(log::causes(&error)))?;
        let warnings = journal.check().await?;
        Ok((journal, warnings))
    }

    /// Checks that a majority of one cluster answers, that this user may read and write everything below the prefix, that
    /// etcd allows transactions as large as the config says, and that nobody else keeps anything there. It writes nothing.
    /// Returns what works and is dangerous.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self) -> Result<Vec<String>, Refusal> {
        let mut warnings = self.members().await?;
        self.may_read().await?;
        self.may_write().await?;
        if !self.access.client.has_users().await.map_err(|error| self.refusal(error))? {
            warnings.push(
                "etcd knows no users: everybody who reaches it can delete every key; enable authentication ('etcdctl auth \
                 enable')"
                    .into(),
            );
        }
        // A user may lack the right to ask for it; then nothing is said.
        if let Ok(list) = self.access.client.call(MemberListRequest {}).await
            && list.members.iter().filter(|member| !member.is_learner).count() < 3
        {
            warnings.push(
                "the etcd cluster has fewer than three voting members: when one is lost nothing can be changed any more; \
                 run three or five"
                    .into(),
            );
        }
        Ok(warnings)
    }

    pub(super) fn refusal(&self, error: etcd::Error) -> Refusal {
        match error {
            etcd::Error::Unreachable(trouble) => Refusal::Unreachable(trouble.to_string()),
            error => Refusal::Wrong(self.access.failed(error).to_string()),
        }
    }

    /// Asks every member how it is.
    async fn members(&self) -> Result<Vec<String>, Refusal> {
        let (mut warnings, mut silent, mut answers) = (Vec::new(), None, 0);
        for (endpoint, answer) in self.access.client.ask_all(&StatusRequest {}).await {
            match answer {
                Ok(status) => {
                    answers += 1;
                    warnings.extend(risks(&status).into_iter().map(|risk| format!("{endpoint}: {risk}")));
                }
                Err(etcd::Error::Unreachable(trouble)) => {
                    warnings.push(format!("a member does not answer: {trouble}"));
                    silent = Some(trouble);
                }
                Err(error) => return Err(self.refusal(error)),
            }
        }
        match silent {
            Some(trouble) if answers == 0 => Err(Refusal::Unreachable(trouble.to_string())),
            _ => Ok(warnings),
        }
    }

    async fn may_read(&self) -> Result<(), Refusal> {
        let (layout, client) = (&self.access.layout, &self.access.client);
        let answer = client.call(RangeRequest { key: layout.head(), ..RangeRequest::default() }).await;
        let head = self.access.head_of(&answer.map_err(|error| self.refusal(error))?);
        let head = head.map_err(|error| Refusal::Wrong(error.to_string()))?;
        let key = layout.all();
        let range_end = end_of(&key);
        let some = RangeRequest { key, range_end, limit: SOME, keys_only: true, revision: 0 };
        let some = client.call(some).await.map_err(|error| self.refusal(error))?;
        let foreign = some.kvs.iter().find(|kv| layout.place(&kv.key) == Place::Foreign);
        match foreign {
            Some(kv) if head.is_none() => {
                let key = cut(&printable(&String::from_utf8_lossy(&kv.key)), 200).into_owned();
                Err(Refusal::Wrong(format!(
                    "the prefix is that of something else, which has the key '{key}': choose another"
                )))
            }
            _ => Ok(()),
        }
    }

    /// A transaction that writes these, under conditions that contradict each other. etcd checks it as any other, has all
    /// its members agree on it, and does nothing.
    pub(super) fn never(&self, operations: Vec<Request>) -> TxnRequest {
        let probe = self.access.layout.probe();
        let never = Compare::new(&probe, Comparison::NotEqual, Operand::Create(0));
        TxnRequest::when(vec![Compare::absent(&probe), never], operations)
    }

    /// Asks for the rights, and for the largest transactions.
    async fn may_write(&self) -> Result<(), Refusal> {
        let (layout, most) = (&self.access.layout, self.operations);
        let look = RangeRequest { key: layout.head(), keys_only: true, ..RangeRequest::default() };
        let mut write = vec![Request::Put(PutRequest::new(layout.probe(), &[]))];
        write.resize(most, Request::Range(look));
        let key = layout.all();
        let remove = vec![Request::DeleteRange(DeleteRangeRequest { range_end: end_of(&key), key })];
        for operations in [write, remove] {
            match self.access.client.call(self.never(operations)).await {
                Ok(_) => {}
                Err(etcd::Error::Failed(trouble)) if trouble.what.contains("too many operations") => {
                    return Err(Refusal::Wrong(format!(
                        "etcd allows fewer operations in a transaction than 'operations' says, which is {most}: start \
                         etcd with --max-txn-ops={most}, or set 'operations' to what it allows"
                    )));
                }
                Err(error) => return Err(self.refusal(error)),
            }
        }
        Ok(())
    }
}

/// What is dangerous about a member.
fn risks(status: &StatusResponse) -> Vec<String> {
    let mut risks = Vec::new();
    let is_sound = version(&status.version).is_none_or(|(major, minor, patch)| {
        let newest = SOUND[SOUND.len() - 1];
        (major, minor) > (newest.0, newest.1)
            || SOUND.iter().any(|sound| (major, minor) == (sound.0, sound.1) && patch >= sound.2)
    });
    if !is_sound {
        risks.push(format!(
            "etcd {} has known faults in watches (etcd's issues 18089, 15271, 15220): a node notices when it was not told \
             of a change, and then reads everything anew; upgrade to the newest patch of 3.5 or 3.6",
            cut(&printable(&status.version), 40)
        ));
    }
    for (alarm, what) in [
        (
            "NOSPACE",
            "etcd is full, and nothing can be changed: compact and defragment it or raise --quota-backend-bytes, then \
             'etcdctl alarm disarm'",
        ),
        ("CORRUPT", "this member's data is damaged: replace the member"),
    ] {
        if status.errors.iter().any(|error| error.contains(alarm)) {
            risks.push(what.to_owned());
        }
    }
    risks
}

/// The numbers of a version such as `3.5.22` or `3.6.0-rc.1`.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split(['.', '-', '+']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_releases_are_warned_of() {
        let risky = |version: &str| {
            let status = StatusResponse { version: version.into(), ..StatusResponse::default() };
            !risks(&status).is_empty()
        };
        for old in ["3.4.23", "3.5.0", "3.5.21", "3.6.0", "3.6.1", "2.3.7"] {
            assert!(risky(old), "{old}");
        }
        for new in ["3.5.22", "3.5.30", "3.6.2", "3.7.0", "4.0.0", "", "unknown"] {
            assert!(!risky(new), "{new}");
        }
    }

    #[test]
    fn alarms_are_told() {
        let errors = vec!["memberID:1 alarm:NOSPACE ".into(), "alarm:CORRUPT".into()];
        let risks = risks(&StatusResponse { errors, ..StatusResponse::default() });
        assert_eq!(risks.len(), 2, "{risks:?}");
    }
}
