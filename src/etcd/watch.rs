//! A watch of keys at one member.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::{Status, Streaming};

use super::Client;
use super::error::{Error, Judged, Trouble, judge};
use super::members::Member;
use super::message::{Event, ProgressRequest, WatchCreateRequest, WatchRequest, WatchResponse, Watching};

/// The path of the call.
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// After how much silence the member is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(1);

/// Changes of keys as they happen. A member that gives no sign of life any more is left.
#[derive(Debug)]
pub struct Watch {
    client: Arc<Client>,
    member: Member,
    answers: Streaming<WatchResponse>,
    requests: mpsc::Sender<WatchRequest>,
    heard: Instant,
    /// When a sign of life was asked for that has not come.
    asked: Option<Instant>,
}

/// Some changes.
#[derive(Debug)]
pub struct Part {
    /// In the order of their revisions.
    pub events: Vec<Event>,
    /// Whether all changes of the last of these revisions are there.
    pub is_whole: bool,
}

impl Watch {
    /// Begins a watch at a member. Revisions that are no longer kept, and missing rights, are told by [`Watch::next`].
    pub(super) async fn open(
        client: Arc<Client>,
        member: &Member,
        range: &WatchCreateRequest,
        token: Option<&SecretString>,
    ) -> Result<Self, Judged> {
        let (requests, mut later) = mpsc::channel(1);
        let first = stream::once(ready(Watching::Create(range.clone()).into()));
        let all = first.chain(stream::poll_fn(move |context| later.poll_recv(context)));
        let begin = Instant::now();
        let answers = match timeout_at(begin + client.attempt, member.watch(all, token)).await {
            Ok(answers) => answers.map_err(|status| judge(&status, |what| trouble(member, what)))?,
            Err(_) => return Err(Judged::unreachable(trouble(member, "no answer".into()))),
        };
        // A watch that a member does not begin is one of which nothing is heard.
        Ok(Self { client, member: member.clone(), answers, requests, heard: begin, asked: Some(begin) })
    }

    /// The next changes. Waits for them. It may be dropped while it waits, and nothing is lost.
    ///
    /// # Errors
    /// Why there will be no more.
    pub async fn next(&mut self) -> Result<Part, Error> {
        loop {
            let until = self.asked.map_or(self.heard + QUIET, |asked| asked + self.client.attempt);
            let answer = match timeout_at(until, self.answers.message()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return Err(self.ended(Status::unavailable("the member has ended the watch"))),
                Ok(Err(status)) => return Err(self.ended(status)),
                Err(_) if self.asked.is_none() => {
                    // If there is no room for it, one is under way.
                    let _ = self.requests.try_send(Watching::Progress(ProgressRequest {}).into());
                    self.asked = Some(Instant::now());
                    continue;
                }
                Err(_) => return Err(self.ended(Status::unavailable("the watch gives no sign of life"))),
            };
            (self.heard, self.asked) = (Instant::now(), None);
            let is_whole = !answer.fragment;
            let events = self.judged(answer)?;
            if !events.is_empty() {
                return Ok(Part { events, is_whole });
            }
        }
    }

    fn judged(&mut self, mut answer: WatchResponse) -> Result<Vec<Event>, Error> {
        let failed = |what| trouble(&self.member, what);
        self.client.pin(&self.member, answer.header.as_ref()).map_err(|what| Error::Failed(failed(what)))?;
        if !answer.canceled {
            return Ok(std::mem::take(&mut answer.events));
        }
        let reason = std::mem::take(&mut answer.cancel_reason);
        Err(match answer.compact_revision {
            0 if reason.contains("permission denied") => self.ended(Status::permission_denied(reason)),
            0 => self.ended(Status::unavailable(format!("the member has ended the watch: {reason}"))),
            first => Error::Compacted(failed(format!("what is older than revision {first} is no longer kept"))),
        })
    }

    /// Why it has ended. From now on another member is asked.
    fn ended(&self, status: Status) -> Error {
        let judged = judge(&status, |what| trouble(&self.member, what));
        self.client.goes_on(&self.member, &judged, 0);
        judged.into()
    }
}

fn trouble(member: &Member, what: String) -> Trouble {
    Trouble { call: WATCH, endpoint: member.endpoint.clone(), what }
}
