//! Which keys there are below the prefix, and what they hold.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::{Error, Head};
use crate::etcd::message::KeyValue;
use crate::kms::record::Id;

/// The most bytes of a record of the state.
const STATE: usize = 4_096;

/// How many digits an epoch has.
const DIGITS: usize = 16;

/// What keys begin with that belong neither to the head nor to an epoch.
const OTHERS: [&[u8]; 3] = [b"live/", b"made/", b"probe/"];

/// The keys below a prefix.
#[derive(Debug)]
pub(super) struct Layout(String);

/// Where a key belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'k> {
    /// The head.
    Head,
    /// An epoch, and the rest of the key.
    Epoch(u64, &'k [u8]),
    /// What members say, who fills an epoch, what is tried out.
    Other,
    /// What no node has written.
    Foreign,
}

/// What belongs to an epoch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry<'k> {
    Record(Id),
    Seal(&'k str),
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self(prefix.to_owned())
    }

    fn key(&self, rest: impl std::fmt::Display) -> Vec<u8> {
        format!("{}{rest}", self.0).into_bytes()
    }

    /// What every key begins with.
    pub(super) fn all(&self) -> Vec<u8> {
        self.key("")
    }

    pub(super) fn head(&self) -> Vec<u8> {
        self.key("head")
    }

    /// What all keys of an epoch begin with.
    pub(super) fn epoch(&self, epoch: u64) -> Vec<u8> {
        self.key(format_args!("{epoch:016x}/"))
    }

    /// From where to where the keys of all epochs are.
    pub(super) fn epochs(&self) -> (Vec<u8>, Vec<u8>) {
        (self.key("0"), self.key("g"))
    }

    pub(super) fn record(&self, epoch: u64, id: &Id) -> Vec<u8> {
        self.key(format_args!("{epoch:016x}/r/{}", URL_SAFE_NO_PAD.encode(id)))
    }

    pub(super) fn seal(&self, epoch: u64, name: &str) -> Vec<u8> {
        self.key(format_args!("{epoch:016x}/s/{name}"))
    }

    /// Who fills an epoch.
    pub(super) fn made(&self, epoch: u64) -> Vec<u8> {
        self.key(format_args!("made/{epoch:016x}"))
    }

    pub(super) fn live(&self, number: u32) -> Vec<u8> {
        self.key(format_args!("live/{number}"))
    }

    /// What all that members say begins with.
    pub(super) fn lives(&self) -> Vec<u8> {
        self.key("live/")
    }

    /// A key that is never there.
    pub(super) fn probe(&self) -> Vec<u8> {
        self.key("probe/claviger")
    }

    /// The member that says this.
    pub(super) fn live_of(&self, key: &[u8]) -> Option<u32> {
        let number = key.strip_prefix(self.0.as_bytes())?.strip_prefix(b"live/")?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    pub(super) fn place<'k>(&self, key: &'k [u8]) -> Place<'k> {
        match key.strip_prefix(self.0.as_bytes()) {
            Some(b"head") => Place::Head,
            Some(key) if OTHERS.iter().any(|other| key.starts_with(other)) => Place::Other,
            Some(key) => epoch_of(key).map_or(Place::Foreign, |(epoch, rest)| Place::Epoch(epoch, rest)),
            None => Place::Foreign,
        }
    }

    /// The commands that let a user read and write all of this.
    pub(super) fn how_to_grant(&self, user: &str) -> String {
        let prefix = &self.0;
        format!(
            "grant it, as root of etcd: etcdctl role add claviger-kms; etcdctl role grant-permission claviger-kms \
             --prefix=true readwrite {prefix}; etcdctl user grant-role {user} claviger-kms"
        )
    }
}

/// The epoch that a key begins with, and what follows.
fn epoch_of(key: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = key.split_at_checked(DIGITS)?;
    let is_ours = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_ours)?;
    Some((u64::from_str_radix(digits, 16).ok()?, rest.strip_prefix(b"/")?))
}

impl<'k> Entry<'k> {
    /// Reads what follows the epoch.
    pub(super) fn parse(key: &'k [u8]) -> Result<Self, Error> {
        let entry = match key.split_at_checked(2) {
            Some((b"r/", id)) => {
                let mut bytes = Id::default();
                let len = URL_SAFE_NO_PAD.decode_slice(id, &mut bytes);
                (len == Ok(bytes.len())).then_some(Self::Record(bytes))
            }
            Some((b"s/", name)) => std::str::from_utf8(name).ok().map(Entry::Seal),
            _ => None,
        };
        entry.ok_or_else(|| Error::Malformed("an epoch has a key that is neither of a record nor of a seal".into()))
    }
}

/// What the key of the head holds.
pub(super) fn head_value(epoch: u64, state: &[u8]) -> Vec<u8> {
    [&epoch.to_be_bytes(), state].concat()
}

/// The head that its key holds.
pub(super) fn head(kv: &KeyValue) -> Result<Head, Error> {
    match kv.value.split_first_chunk() {
        Some((epoch, state)) if state.len() <= STATE => {
            Ok(Head { revision: kv.mod_revision, epoch: u64::from_be_bytes(*epoch), state: state.to_vec() })
        }
        _ => Err(Error::Malformed("the head is malformed: it is too short or too long".into())),
    }
}

/// The first key after all that begin with `prefix`, which ends in ASCII.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_told_apart() {
        let layout = Layout::new("a/");
        let record = layout.record(0x1f, &[7; 32]);
        assert_eq!(record, b"a/000000000000001f/r/BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
        let Place::Epoch(0x1f, rest) = layout.place(&record) else { panic!("of an epoch") };
        assert_eq!(Entry::parse(rest).expect("a record"), Entry::Record([7; 32]));
        let seal = layout.seal(0x1f, "env");
        let Place::Epoch(0x1f, rest) = layout.place(&seal) else { panic!("of an epoch") };
        assert_eq!(Entry::parse(rest).expect("a seal"), Entry::Seal("env"));
        assert_eq!(layout.place(&layout.head()), Place::Head);
        for other in [layout.live(7), layout.made(7), layout.probe()] {
            assert_eq!(layout.place(&other), Place::Other);
        }
        for foreign in ["a/000000000000001F/r/", "a/0000000000000001", "a/my-key", "head", "", "live/"] {
            assert_eq!(layout.place(foreign.as_bytes()), Place::Foreign);
        }
        assert_eq!((layout.live_of(&layout.live(70)), layout.live_of(b"a/live/x")), (Some(70), None));
        for bad in ["r/BwcH", "s", "r/BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwd", "x/1", "", "r/"] {
            assert!(Entry::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_head_has_an_epoch_and_a_state_of_some_size() {
        let kv = |value: Vec<u8>| KeyValue { key: Vec::new(), mod_revision: 5, value, lease: 0 };
        let read = head(&kv(head_value(9, b"state"))).expect("a head");
        assert_eq!(read, Head { revision: 5, epoch: 9, state: b"state".to_vec() });
        assert!(head(&kv(vec![0; 7])).is_err() && head(&kv(vec![0; 9 + STATE])).is_err());
    }

    proptest! {
        #[test]
        fn no_key_is_too_strange(key: Vec<u8>, rest: Vec<u8>) {
            let layout = Layout::new("a/");
            for key in [key, [b"a/000000000000001f/".as_slice(), &rest].concat(), [b"a/".as_slice(), &rest].concat()] {
                if let Place::Epoch(_, rest) = layout.place(&key) {
                    let _ = Entry::parse(rest);
                }
            }
        }
    }
}
