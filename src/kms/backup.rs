//! Backups: every seal and every record in one file, encrypted as they are in the store.

use super::record::Id;
use super::store::Seals;

/// The first bytes of every backup.
const MAGIC: &[u8] = b"claviger kms backup v1\n";

/// The kinds of parts.
const SEAL: u8 = 1;
const RECORD: u8 = 2;
const END: u8 = 3;

/// What is in a backup.
pub(super) type Content = (Seals, Vec<(Id, Vec<u8>)>);

/// The bytes are not a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no whole backup of a key manager")]
pub struct Malformed;

/// Writes a backup.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// A backup with these seals.
    pub(super) fn new(seals: &Seals) -> Self {
        let mut writer = Self(MAGIC.to_vec());
        seals.iter().for_each(|(name, seal)| writer.part(SEAL, name.as_bytes(), seal));
        writer
    }

    /// Adds a record.
    pub(super) fn add(&mut self, id: &Id, value: &[u8]) {
        self.part(RECORD, id, value);
    }

    /// The bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push(END);
        self.0
    }

    fn part(&mut self, kind: u8, name: &[u8], value: &[u8]) {
        self.0.push(kind);
        for bytes in [name, value] {
            self.0.extend(u32::try_from(bytes.len()).expect("records are shorter than 4 GiB").to_be_bytes());
            self.0.extend_from_slice(bytes);
        }
    }
}

/// Reads a backup.
///
/// # Errors
/// When the bytes are not a backup, or are incomplete.
pub(super) fn parse(bytes: &[u8]) -> Result<Content, Malformed> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(Malformed)?;
    let (mut seals, mut records) = (Seals::new(), Vec::new());
    loop {
        let (kind, after) = rest.split_first().ok_or(Malformed)?;
        if *kind == END {
            return if after.is_empty() { Ok((seals, records)) } else { Err(Malformed) };
        }
        let (name, after) = take(after).ok_or(Malformed)?;
        let (value, after) = take(after).ok_or(Malformed)?;
        match *kind {
            SEAL => {
                let name = std::str::from_utf8(name).map_err(|_| Malformed)?;
                seals.insert(name.to_owned(), value.to_vec());
            }
            RECORD => records.push((name.try_into().map_err(|_| Malformed)?, value.to_vec())),
            _ => return Err(Malformed),
        }
        rest = after;
    }
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_backup_is_read_as_written(seals: Seals, records: Vec<(Id, Vec<u8>)>, cut: prop::sample::Index) {
            let mut writer = Writer::new(&seals);
            records.iter().for_each(|(id, value)| writer.add(id, value));
            let bytes = writer.finish();
            prop_assert_eq!(parse(&bytes), Ok((seals, records)));
            let cut = cut.index(bytes.len());
            prop_assert_eq!(parse(&bytes[..cut]), Err(Malformed));
        }

        #[test]
        fn other_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert_eq!(parse(&bytes), Err(Malformed));
            let _ = parse(&[MAGIC, &bytes].concat());
        }
    }
}
