//! All connections of a server: counts them, limits their number, and ends idle ones.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection::{Connection, End};

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    all: HashMap<u64, Arc<Connection>>,
}

/// A place among the connections. It is released on drop, also after a panic.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    connections: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().all.remove(&self.id);
    }
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. When the limit is reached, the connection that has been idle longest is closed for it; `None`
    /// when none is idle.
    pub(super) fn admit(self: &Arc<Self>, connection: Arc<Connection>, now: Instant) -> Option<Place> {
        let mut inner = self.lock();
        if inner.all.len() >= self.max {
            let idle = inner.all.iter().filter_map(|(id, connection)| Some((connection.idle(now)?, *id)));
            let (_, longest) = idle.max()?;
            if let Some(connection) = inner.all.remove(&longest) {
                connection.end(End::Close);
            }
        }
        inner.next += 1;
        let id = inner.next;
        inner.all.insert(id, connection);
        Some(Place { id, connections: self.clone() })
    }

    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }

    /// Asks all connections to end.
    pub(super) fn end_all(&self, end: End) {
        for connection in self.lock().all.values() {
            connection.end(end);
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
        inner.all.values().filter(check).map(|connection| connection.ip()).collect()
    }
}
