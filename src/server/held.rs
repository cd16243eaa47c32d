//! Memory that clients make the server hold: bodies on their way in, replies that they have not taken yet.
//!
//! It is counted for each connection, for each client and for all servers of the process together. What would go beyond one of them is
//! refused with 503 before it is taken, so that nobody makes the server grow without end, and nobody takes the room of
//! all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Error;
use crate::auth::Identity;

/// What all clients together may make the server hold, in bytes.
const SERVER: usize = 256 << 20;

/// What one connection may, in bytes. A lone body or reply may be larger, where its route allows that.
const CONNECTION: usize = 32 << 20;

/// A body that came in one piece, or a reply, is not counted up to this size, in bytes. Most are smaller, and a
/// connection has a few hundred of them at most.
pub(super) const SMALL: usize = 4 << 10;

/// Who makes the server hold something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// One that may send the request.
    Known(Identity),
    /// One that needs no right for it, or has none: the address, or the network. Identities cost nothing, so they tell
    /// nobody apart here.
    Unknown(IpAddr),
}

/// What the requests of one connection hold.
#[derive(Debug)]
pub(super) struct Account {
    /// In bytes.
    held: AtomicUsize,
    /// Where it is counted with what all others hold.
    server: Arc<Accounts>,
}

impl Account {
    /// One of a connection that holds nothing yet.
    pub(super) fn of(server: Arc<Accounts>) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), server })
    }

    /// Counts `bytes` of a request that holds `own`, unless there are too many then.
    fn add(&self, bytes: usize, own: usize) -> bool {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == own || before.saturating_add(bytes) <= CONNECTION;
        if !fits {
            self.subtract(bytes);
        }
        fits
    }

    fn subtract(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What all requests of a server hold.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: usize,
    /// Only of those who hold something.
    by_client: HashMap<Client, usize>,
}

impl Accounts {
    /// Counts `bytes`, unless the client would then hold more than is left for all others. So one alone gets half of
    /// everything, each of two a third, and there is always something left for the next.
    fn add(&self, bytes: usize, client: &Client) -> bool {
        let mut inner = self.lock();
        let own = inner.by_client.get(client).copied().unwrap_or_default().saturating_add(bytes);
        let all = inner.all.saturating_add(bytes);
        let fits = own <= SERVER.saturating_sub(all);
        if fits {
            inner.all = all;
            inner.by_client.insert(client.clone(), own);
        }
        fits
    }

    fn subtract(&self, bytes: usize, client: &Client) {
        let mut inner = self.lock();
        inner.all -= bytes;
        if let Some(own) = inner.by_client.get_mut(client) {
            *own -= bytes;
            if *own == 0 {
                inner.by_client.remove(client);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one request makes the server hold; given back when dropped.
#[derive(Debug)]
pub struct Held {
    /// None: it is not counted.
    by: Option<(Arc<Account>, Client)>,
    bytes: AtomicUsize,
}

impl Held {
    /// Nothing yet, of a request of this client on this connection.
    pub(super) fn on(account: Arc<Account>, client: Client) -> Self {
        Self { by: Some((account, client)), bytes: AtomicUsize::new(0) }
    }

    /// Of a request that may hold what it likes.
    pub(super) fn uncounted() -> Self {
        Self { by: None, bytes: AtomicUsize::new(0) }
    }

    /// Counts so many bytes more.
    ///
    /// # Errors
    /// When they are too many.
    pub(super) fn grow(&self, bytes: usize) -> Result<(), Error> {
        let Some((here, client)) = &self.by else { return Ok(()) };
        if !here.add(bytes, self.bytes.load(Ordering::Relaxed)) {
            return Err(Error::overload("this connection has too many large requests and unread replies"));
        }
        if !here.server.add(bytes, client) {
            here.subtract(bytes);
            return Err(Error::overload("there are too many large requests and unread replies of this client"));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if let Some((here, client)) = self.by.as_ref().filter(|_| bytes > 0) {
            here.subtract(bytes);
            here.server.subtract(bytes, client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn connection(server: &Arc<Accounts>) -> Arc<Account> {
        Account::of(server.clone())
    }

    fn client(name: &str) -> Client {
        Client::Known(Identity::parse(name).expect("valid"))
    }

    /// Holds as much as the client gets, in pieces and on as many connections as it takes.
    fn fill(server: &Arc<Accounts>, client: &Client) -> (Vec<Held>, usize) {
        let (mut all, mut bytes) = (Vec::new(), 0);
        loop {
            let connection = connection(server);
            let held: Vec<_> = std::iter::repeat_with(|| Held::on(connection.clone(), client.clone()))
                .take_while(|held| held.grow(MIB).is_ok())
                .collect();
            if held.is_empty() {
                return (all, bytes);
            }
            bytes += MIB * held.len();
            all.extend(held);
        }
    }

    #[test]
    fn a_connection_has_its_bound_and_gets_back_what_was_held() {
        let server = Arc::new(Accounts::default());
        let connection = connection(&server);
        let on = || Held::on(connection.clone(), client("a"));
        let (first, second) = (on(), on());
        assert!(first.grow(CONNECTION - 1).is_ok() && second.grow(1).is_ok());
        assert!(second.grow(1).is_err() && on().grow(1).is_err());
        drop((first, second));
        assert!(on().grow(CONNECTION).is_ok());
        let inner = server.lock();
        assert!(inner.all == 0 && inner.by_client.is_empty());
    }

    #[test]
    fn no_client_takes_more_than_it_leaves_to_the_others() {
        let server = Arc::new(Accounts::default());
        let (first, alone) = fill(&server, &client("first"));
        assert_eq!(alone, SERVER / 2);
        let (second, beside) = fill(&server, &client("second"));
        assert_eq!(beside, SERVER / 4, "half of what is left");
        let unknown = Client::Unknown([10, 0, 0, 7].into());
        assert!(Held::on(connection(&server), unknown).grow(MIB).is_ok(), "there is always something left");
        drop(first);
        let (_, again) = fill(&server, &client("second"));
        assert_eq!(beside + again, SERVER / 2, "it is alone now");
        drop(second);
    }

    #[test]
    fn a_lone_one_may_be_larger_and_one_that_is_not_counted_anything() {
        let connection = connection(&Arc::default());
        let held = Held::on(connection.clone(), client("a"));
        assert!(held.grow(CONNECTION).is_ok() && held.grow(CONNECTION).is_ok());
        assert!(Held::on(connection, client("a")).grow(1).is_err());
        assert!(Held::uncounted().grow(2 * SERVER).is_ok());
    }
}
