//! Following: the events of one revision are one commit.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;

use super::layout::{self, Entry, Place, end_of};
use super::{Access, Changes, Error, Follow, Head};
use crate::etcd::Watch;
use crate::etcd::message::{Event, EventKind, WatchCreateRequest};
use crate::kms::journal::Commit;

/// The most keys and bytes that one commit may change. No node writes nearly as many.
const MOST_CHANGES: usize = 65_536;
const MOST_BYTES: usize = 8 << 20;

/// The commits after a head.
pub(super) struct Following {
    watch: Watch,
    gather: Gather,
    ready: VecDeque<Commit>,
}

impl Following {
    pub(super) async fn begin(access: Arc<Access>, after: &Head) -> Result<Self, Error> {
        // etcd would answer with the newest one.
        if after.revision == 0 {
            return Err(Error::Compacted);
        }
        let (head, _) = access.head(after.revision).await?;
        if head.as_ref() != Some(after) {
            return Err(Error::SetBack(format!(
                "etcd was set back: at revision {} it has another head",
                after.revision
            )));
        }
        // It begins at that head and not after it: some releases give no sign of life to a watch that begins later than now.
        let (key, start_revision) = (access.layout.all(), after.revision);
        let range = WatchCreateRequest { range_end: end_of(&key), key, start_revision, fragment: true };
        let watch = access.client.watch(range).await.map_err(|error| access.failed(error))?;
        Ok(Self { watch, gather: Gather::new(access, after), ready: VecDeque::new() })
    }
}

#[async_trait]
impl Follow for Following {
    async fn next(&mut self) -> Result<Commit, Error> {
        loop {
            if let Some(commit) = self.ready.pop_front() {
                return Ok(commit);
            }
            let part = self.watch.next().await.map_err(|error| self.gather.access.failed(error))?;
            for event in part.events {
                self.ready.extend(self.gather.take(event)?);
            }
            if part.is_whole {
                self.ready.extend(self.gather.finish()?);
            }
        }
    }
}

/// Puts events together.
struct Gather {
    access: Arc<Access>,
    /// The revision of the last commit.
    after: i64,
    /// The epoch of its head.
    epoch: u64,
    /// The revision whose events are gathered.
    revision: i64,
    head: Option<Head>,
    changes: Changes,
    bytes: usize,
}

impl Gather {
    fn new(access: Arc<Access>, after: &Head) -> Self {
        let Head { revision, epoch, .. } = *after;
        Self { access, after: revision, epoch, revision, head: None, changes: Changes::default(), bytes: 0 }
    }

    /// Takes the next event. Returns the commit before it, if it is of another revision.
    fn take(&mut self, event: Event) -> Result<Option<Commit>, Error> {
        let is_removed = event.kind == EventKind::Delete as i32;
        let Some(mut kv) = event.kv else { return Err(Error::Malformed("an event of etcd has no key".into())) };
        if kv.mod_revision <= self.after {
            return Ok(None);
        }
        if kv.mod_revision < self.revision {
            return Err(Error::Malformed("etcd tells its changes in the wrong order".into()));
        }
        let before = if kv.mod_revision > self.revision { self.finish()? } else { None };
        self.revision = kv.mod_revision;
        match self.access.layout.place(&kv.key) {
            Place::Head if is_removed => return Err(Error::SetBack("somebody has removed the head from etcd".into())),
            Place::Head => self.head = Some(layout::head(&kv)?),
            Place::Epoch(epoch, rest) if epoch == self.epoch => {
                self.bytes += kv.key.len() + kv.value.len();
                let value = (!is_removed).then(|| std::mem::take(&mut kv.value));
                match Entry::parse(rest)? {
                    Entry::Record(id) => drop(self.changes.records.insert(id, value)),
                    Entry::Seal(name) => drop(self.changes.seals.insert(name.to_owned(), value)),
                }
            }
            Place::Epoch(..) | Place::Other | Place::Foreign => {}
        }
        if self.changes.count() > MOST_CHANGES || self.bytes > MOST_BYTES {
            return Err(Error::Malformed("one commit changes more than any node writes".into()));
        }
        Ok(before)
    }

    /// The commit whose events are all there; none: they were about nothing.
    fn finish(&mut self) -> Result<Option<Commit>, Error> {
        let (head, mut changes) = (self.head.take(), std::mem::take(&mut self.changes));
        self.bytes = 0;
        let Some(head) = head else {
            if changes.count() > 0 {
                return Err(Error::Malformed("somebody has changed records without making a commit".into()));
            }
            return Ok(None);
        };
        if head.epoch != self.epoch {
            changes = Changes::default();
        }
        (self.after, self.epoch) = (head.revision, head.epoch);
        Ok(Some(Commit { head, changes }))
    }
}
