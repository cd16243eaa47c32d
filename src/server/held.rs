//! Memory that clients make the server hold: bodies on their way in, replies that they have not taken yet.
//!
//! It is counted for each connection and for the whole server. What would go beyond either is refused with 503 before
//! it is taken, so that nobody makes the server grow without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Error;
use super::connection::Connection;

/// What all clients together may make the server hold, in bytes.
const SERVER: usize = 256 << 20;

/// What one connection may, in bytes. A lone body or reply may be larger, where its route allows that.
const CONNECTION: usize = 32 << 20;

/// A body that came in one piece, or a reply, is not counted up to this size, in bytes. Most are smaller, and a
/// connection has a few hundred of them at most.
pub(super) const SMALL: usize = 4 << 10;

/// How many bytes somebody makes the server hold.
#[derive(Debug, Default)]
pub(super) struct Account(AtomicUsize);

impl Account {
    /// Counts `bytes`, unless there are more than `most` then.
    fn add(&self, bytes: usize, most: impl Fn(usize) -> bool) -> bool {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let fits = most(before);
        if !fits {
            self.subtract(bytes);
        }
        fits
    }

    fn subtract(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one request makes the server hold; given back when dropped.
#[derive(Debug)]
pub struct Held {
    /// None: it is not counted.
    connection: Option<Arc<Connection>>,
    bytes: AtomicUsize,
}

impl Held {
    /// Nothing yet, of a request on this connection.
    pub(super) fn on(connection: Arc<Connection>) -> Self {
        Self { connection: Some(connection), bytes: AtomicUsize::new(0) }
    }

    /// Of a request that may hold what it likes.
    pub(super) fn uncounted() -> Self {
        Self { connection: None, bytes: AtomicUsize::new(0) }
    }

    /// Counts so many bytes more.
    ///
    /// # Errors
    /// When they are too many.
    pub(super) fn grow(&self, bytes: usize) -> Result<(), Error> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let own = self.bytes.load(Ordering::Relaxed);
        let (here, server) = connection.accounts();
        if !here.add(bytes, |before| before == own || before.saturating_add(bytes) <= CONNECTION) {
            return Err(Error::overload("this connection has too many large requests and unread replies"));
        }
        if !server.add(bytes, |before| before.saturating_add(bytes) <= SERVER) {
            here.subtract(bytes);
            return Err(Error::overload("the server has too many large requests and unread replies"));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if let Some(connection) = self.connection.as_ref().filter(|_| bytes > 0) {
            let (here, server) = connection.accounts();
            here.subtract(bytes);
            server.subtract(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Instant;

    use super::*;
    use crate::clock::Ticker;

    fn connection(server: &Arc<Account>) -> Arc<Connection> {
        let now = Instant::now();
        Connection::new(IpAddr::from([127, 0, 0, 1]), Ticker::start(now), server.clone(), now)
    }

    #[test]
    fn a_connection_and_the_server_have_their_bounds_and_get_back_what_was_held() {
        let server = Arc::new(Account::default());
        let (mut all, connections) = (Vec::new(), (0..9).map(|_| connection(&server)).collect::<Vec<_>>());
        for connection in &connections {
            let held = Held::on(connection.clone());
            held.grow(CONNECTION).is_ok().then(|| all.push(held));
            let more = Held::on(connection.clone());
            assert!(more.grow(1).is_err() || all.len() == SERVER / CONNECTION);
        }
        assert_eq!(all.len(), SERVER / CONNECTION);
        drop(all);
        assert!(Held::on(connections[0].clone()).grow(CONNECTION).is_ok());
        assert_eq!(server.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_lone_one_may_be_larger_and_one_that_is_not_counted_anything() {
        let server = Arc::new(Account::default());
        let connection = connection(&server);
        let held = Held::on(connection.clone());
        assert!(held.grow(CONNECTION).is_ok() && held.grow(CONNECTION).is_ok());
        assert!(Held::on(connection).grow(1).is_err());
        assert!(Held::uncounted().grow(2 * SERVER).is_ok());
    }
}
