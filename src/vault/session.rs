//! Sessions: what a client gets that logs in. A token says everything itself and is signed with a key that is derived from
//! the root key, so it needs no store, and is valid after a restart, too.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::auth::enclave::Identity;
use crate::crypto::{NoRandom, Sealer, random};

/// What a session token begins with.
pub(super) const PREFIX: &str = "cvs.";

/// Bytes of the signed part, and of the whole.
const SIGNED: usize = 16 + 32 + 8 + 8 + 16;
const LEN: usize = SIGNED + 32;

/// How many renewals are remembered, each of a session that was valid then. One identity alone may have half of them.
const MOST: usize = 100_000;

/// The SHA-256 of a token.
pub(super) type Hash = [u8; 32];

/// A session, as its token says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    /// The id of the enclave: a later one of the same name is another one.
    pub(super) enclave: [u8; 16],
    pub(super) identity: Identity,
    /// When it began, in seconds since 1970.
    pub(super) issued: i64,
    /// When it ends for good.
    pub(super) end: i64,
    pub(super) hash: Hash,
}

impl Session {
    /// Begins a session; returns its token.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(super) fn begin(
        sealer: &Sealer,
        enclave: [u8; 16],
        identity: Identity,
        (issued, end): (i64, i64),
    ) -> Result<(Self, Zeroizing<String>), NoRandom> {
        let mut bytes = Zeroizing::new([0; LEN]);
        bytes[..16].copy_from_slice(&enclave);
        bytes[16..48].copy_from_slice(&identity.to_hash());
        bytes[48..56].copy_from_slice(&issued.to_be_bytes());
        bytes[56..64].copy_from_slice(&end.to_be_bytes());
        random::fill(&mut bytes[64..SIGNED])?;
        let tag = sealer.sign(&[&bytes[..SIGNED]]);
        bytes[SIGNED..].copy_from_slice(&tag);
        let mut token = Zeroizing::new(String::with_capacity(PREFIX.len() + LEN * 4 / 3 + 4));
        token.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut token);
        let hash = Sha256::digest(token.as_bytes()).into();
        Ok((Self { enclave, identity, issued, end, hash }, token))
    }

    /// The session of a token; none when it was not signed here.
    pub(super) fn of(sealer: &Sealer, token: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; LEN]);
        let len = URL_SAFE_NO_PAD.decode_slice(token.strip_prefix(PREFIX)?, &mut *bytes).ok()?;
        let tag = sealer.sign(&[&bytes[..SIGNED]]);
        if len != LEN || !bool::from(tag.ct_eq(&bytes[SIGNED..])) {
            return None;
        }
        let time = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Some(Self {
            enclave: bytes[..16].try_into().expect("16 bytes"),
            identity: Identity::of_hash(bytes[16..48].try_into().expect("32 bytes")),
            issued: time(48),
            end: time(56),
            hash: Sha256::digest(token.as_bytes()).into(),
        })
    }
}

/// When sessions were renewed. It is not kept over a restart: then every session counts as renewed at the start.
#[derive(Debug)]
pub(super) struct Renewals {
    started: i64,
    renewed: RwLock<Renewed>,
}

#[derive(Debug, Default)]
struct Renewed {
    sessions: HashMap<Hash, Renewal>,
    /// How many sessions each identity has here; only of those that have any.
    by_identity: HashMap<Identity, usize>,
    /// When sessions that have ended were last forgotten.
    cleaned: i64,
}

#[derive(Debug, Clone, Copy)]
struct Renewal {
    identity: Identity,
    at: i64,
}

/// The identity has as many renewed sessions as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

impl Renewals {
    /// None yet, of a server that started then.
    pub(super) fn new(started: i64) -> Self {
        Self { started, renewed: RwLock::default() }
    }

    /// For how many seconds a session is still valid if nobody renews it; none: it has ended.
    pub(super) fn left(&self, session: &Session, ttl: Duration, now: i64) -> Option<u64> {
        let renewed = self.renewed.read().unwrap_or_else(PoisonError::into_inner);
        let renewed = renewed.sessions.get(&session.hash).map(|renewal| renewal.at);
        let since = renewed.unwrap_or(session.issued).max(self.started.min(now));
        let until = since.saturating_add(seconds(ttl)).min(session.end);
        u64::try_from(until - now).ok().filter(|left| *left > 0)
    }

    /// Notes that a valid session was renewed.
    ///
    /// # Errors
    /// When its identity has so many renewed sessions that nothing would be left for others.
    pub(super) fn renew(&self, session: &Session, ttl: Duration, now: i64) -> Result<(), TooMany> {
        let mut renewed = self.write();
        if let Some(renewal) = renewed.sessions.get_mut(&session.hash) {
            renewal.at = now;
            return Ok(());
        }
        // At most once a second, so that nobody has the whole list looked through for every request.
        if !renewed.has_room(&session.identity) && renewed.cleaned < now {
            renewed.cleaned = now;
            renewed.forget_ended(ttl, now);
        }
        if !renewed.has_room(&session.identity) {
            return Err(TooMany);
        }
        renewed.sessions.insert(session.hash, Renewal { identity: session.identity, at: now });
        *renewed.by_identity.entry(session.identity).or_default() += 1;
        Ok(())
    }

    /// Forgets a session that was revoked.
    pub(super) fn forget(&self, session: &Session) {
        self.write().forget(&session.hash);
    }

    fn write(&self) -> RwLockWriteGuard<'_, Renewed> {
        self.renewed.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Renewed {
    /// Whether an identity may have one more session here. None may have more than it leaves to all others, so one alone
    /// gets half, each of two a third, and there is always something left for the next.
    fn has_room(&self, identity: &Identity) -> bool {
        let own = self.by_identity.get(identity).copied().unwrap_or_default();
        own < MOST - self.sessions.len()
    }

    fn forget_ended(&mut self, ttl: Duration, now: i64) {
        let is_over = |renewal: &Renewal| renewal.at.saturating_add(seconds(ttl)) <= now;
        let ended: Vec<_> =
            self.sessions.iter().filter(|(_, renewal)| is_over(renewal)).map(|(hash, _)| *hash).collect();
        ended.iter().for_each(|hash| self.forget(hash));
    }

    fn forget(&mut self, hash: &Hash) {
        let Some(Renewal { identity, .. }) = self.sessions.remove(hash) else { return };
        if let Some(own) = self.by_identity.get_mut(&identity) {
            *own -= 1;
            if *own == 0 {
                self.by_identity.remove(&identity);
            }
        }
    }
}

/// Whole seconds.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::enclave::ApiKey;
    use crate::crypto::SecretKey;

    const TTL: Duration = Duration::from_secs(100);

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(SecretKey::from_slice(&[byte; 32]).expect("32 bytes"))
    }

    fn begun() -> (Session, Zeroizing<String>) {
        let identity = ApiKey::generate().expect("random bytes").identity();
        Session::begin(&sealer(1), [7; 16], identity, (1_000, 2_000)).expect("random bytes")
    }

    #[test]
    fn a_token_is_read_as_it_was_made_and_no_other() {
        let (session, token) = begun();
        assert_eq!(Session::of(&sealer(1), &token), Some(session));
        assert_eq!(Session::of(&sealer(2), &token), None);
        for at in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(Session::of(&sealer(1), &changed), None, "{at}");
            assert_eq!(Session::of(&sealer(1), &token[..at]), None, "{at}");
        }
        assert_eq!(Session::of(&sealer(1), &format!("{}AAAA", *token)), None);
    }

    #[test]
    fn a_session_ends_when_nobody_renews_it_and_for_good_at_its_end() {
        let ((session, _), renewals) = (begun(), Renewals::new(0));
        let left = |now| renewals.left(&session, TTL, now);
        assert_eq!((left(1_000), left(1_099), left(1_100)), (Some(100), Some(1), None));
        assert_eq!(renewals.renew(&session, TTL, 1_050), Ok(()));
        assert_eq!((left(1_149), left(1_150)), (Some(1), None));
        assert_eq!(renewals.renew(&session, TTL, 1_950), Ok(()));
        assert_eq!((left(1_960), left(2_000)), (Some(40), None));
        // A server that started later knows of no renewal.
        let later = Renewals::new(1_500);
        assert_eq!((later.left(&session, TTL, 1_500), later.left(&session, TTL, 1_600)), (Some(100), None));
    }

    #[test]
    fn an_identity_with_many_sessions_is_told_so_and_leaves_room_for_others() {
        let (renewals, (one, _), (other, _)) = (Renewals::new(0), begun(), begun());
        let numbered = |session: Session, number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            hash[8..24].copy_from_slice(&session.identity.to_hash()[..16]);
            Session { hash, ..session }
        };
        let fill = |session, now| {
            (0..MOST).take_while(|number| renewals.renew(&numbered(session, *number), TTL, now).is_ok()).count()
        };
        assert_eq!(fill(one, 1_000), MOST / 2);
        assert_eq!(renewals.renew(&numbered(one, MOST), TTL, 1_000), Err(TooMany));
        assert_eq!(renewals.renew(&numbered(one, 0), TTL, 1_001), Ok(()), "one that is known is renewed again");
        assert_eq!(fill(other, 1_000), MOST / 4, "half of what is left");
        renewals.forget(&numbered(one, 0));
        assert_eq!(renewals.renew(&numbered(one, MOST), TTL, 1_001), Err(TooMany), "it still has more than is left");
        assert_eq!(renewals.renew(&numbered(one, MOST), TTL, 1_200), Ok(()), "all others have ended");
        let renewed = renewals.write();
        assert_eq!((renewed.sessions.len(), renewed.by_identity.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn what_was_not_signed_here_is_no_session(token in "(cvs\\.)?\\PC{0,250}", bytes: Vec<u8>) {
            prop_assert_eq!(Session::of(&sealer(1), &token), None);
            let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            prop_assert_eq!(Session::of(&sealer(1), &token), None);
        }
    }
}
