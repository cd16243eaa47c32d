//! All connections of a server: counts them, limits their number, shares them out among clients, and ends idle ones.
//!
//! As long as there are enough, every client has as many as it wants. When all are taken, a new one takes the place of
//! an idle one of its own client, or of a client that has more. When none is idle, the client that has most loses one to
//! a client that has fewer. So nobody keeps others out, however many connections it keeps busy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection::{Connection, End};
use super::denials;
use super::held::Client;

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The number of the last one; the first one has 1.
    last: u64,
    all: HashMap<u64, Open>,
    /// How many each client has; only of those that have any.
    by_client: HashMap<Client, usize>,
}

/// An open connection.
#[derive(Debug)]
struct Open {
    connection: Arc<Connection>,
    /// Whose it is. Until somebody known sends a request over it, it belongs to its address or network.
    client: Client,
}

/// A place among the connections. It is released on drop, also after a panic.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    connections: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(self.number);
    }
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection, and closes another one for it when the limit is reached; `None` when none may be closed. Says,
    /// too, where one came from that was closed in the middle of a request.
    pub(super) fn admit(
        self: &Arc<Self>,
        connection: Arc<Connection>,
        now: Instant,
    ) -> Option<(Place, Option<IpAddr>)> {
        let client = Client::Unknown(denials::network(connection.ip()));
        let (mut inner, mut ended) = (self.lock(), None);
        if inner.all.len() >= self.max {
            let gone = inner.idle_for(&client, now).or_else(|| inner.busy_for(&client, now))?;
            if let Some(Open { connection, .. }) = inner.remove(gone) {
                ended = connection.idle(now).is_none().then(|| connection.ip());
                connection.end(End::Close);
            }
        }
        inner.last += 1;
        let number = inner.last;
        connection.number(number);
        inner.add(number, Open { connection, client });
        Some((Place { number, connections: self.clone() }, ended))
    }

    /// Notes who sends a request over a connection. The first known client of it is the one that it belongs to.
    pub(super) fn note_client(&self, connection: &Connection, client: &Client) {
        if !matches!(client, Client::Known(_)) || !connection.is_unclaimed() {
            return;
        }
        let mut inner = self.lock();
        let open = connection.claim().and_then(|number| Some((number, inner.remove(number)?)));
        if let Some((number, Open { connection, .. })) = open {
            inner.add(number, Open { connection, client: client.clone() });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }

    /// Asks all connections to end.
    pub(super) fn end_all(&self, end: End) {
        for open in self.lock().all.values() {
            open.connection.end(end);
        }
    }

    /// Ends those that have been idle for too long, and those whose clients do not take a reply. Says where the latter
    /// came from.
    pub(super) fn check(&self, now: Instant) -> Vec<IpAddr> {
        let inner = self.lock();
        let check = |connection: &&Arc<Connection>| {
            connection.check(now);
            connection.is_unread(now)
        };
        inner.all.values().map(|open| &open.connection).filter(check).map(|connection| connection.ip()).collect()
    }
}

impl Inner {
    fn add(&mut self, number: u64, open: Open) {
        *self.by_client.entry(open.client.clone()).or_default() += 1;
        self.all.insert(number, open);
    }

    fn remove(&mut self, number: u64) -> Option<Open> {
        let open = self.all.remove(&number)?;
        if let Some(count) = self.by_client.get_mut(&open.client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&open.client);
            }
        }
        Some(open)
    }

    fn count(&self, client: &Client) -> usize {
        self.by_client.get(client).copied().unwrap_or_default()
    }

    /// The connection that has been idle longest, of those that may go for a new one of this client.
    fn idle_for(&self, client: &Client, now: Instant) -> Option<u64> {
        let own = self.count(client);
        let may_go = |open: &Open| open.client == *client || self.count(&open.client) > own;
        let idle = self.all.iter().filter_map(|(number, open)| Some((open.connection.idle(now)?, number, open)));
        idle.filter(|(_, _, open)| may_go(open)).max_by_key(|(idle, ..)| *idle).map(|(_, number, _)| *number)
    }

    /// The connection that has been busy longest of the client that has most, if it has more than this client would
    /// have.
    fn busy_for(&self, client: &Client, now: Instant) -> Option<u64> {
        let (most, count) = self.by_client.iter().max_by_key(|(_, count)| **count)?;
        if *count <= self.count(client) + 1 {
            return None;
        }
        let theirs = self.all.iter().filter(|(_, open)| open.client == *most);
        theirs.max_by_key(|(_, open)| open.connection.since_idle(now)).map(|(number, _)| *number)
    }
}
