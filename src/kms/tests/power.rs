//! Simulates power cuts: synced data stays; of the sectors written since, a random part stays.
//!
//! The environment variable `CUTS` sets how many.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::*;
use crate::kms::store::Redb;

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// A disk in memory, of which every clone is the same one.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What is read while there is power.
    seen: Vec<u8>,
    /// What is there for sure after a cut.
    synced: Vec<u8>,
    /// What happened since the last sync.
    since: Vec<Change>,
    /// How many more changes and syncs there is power for.
    power: u64,
    /// Whether it says that it has synced when it has not.
    lies: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Len(len) => bytes.resize(*len, 0),
            Self::Write(at, data) => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }

    /// The same change, sector by sector.
    fn sectors(self) -> Vec<Self> {
        let Self::Write(mut at, mut data) = self else { return vec![self] };
        let mut sectors = Vec::new();
        while !data.is_empty() {
            let rest = data.split_off(data.len().min(SECTOR - at % SECTOR));
            let next = at + data.len();
            sectors.push(Self::Write(at, std::mem::replace(&mut data, rest)));
            at = next;
        }
        sectors
    }
}

impl Disk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("nobody panics with it")
    }

    fn is_off(&self) -> bool {
        self.platter().power == 0
    }

    fn clear(&self) {
        let mut platter = self.platter();
        (platter.seen, platter.synced) = (Vec::new(), Vec::new());
    }

    /// Cuts the power where it is still on, and turns it on for `power` changes.
    fn restart(&self, power: u64, random: &mut Random) {
        let mut platter = self.platter();
        let mut bytes = std::mem::take(&mut platter.synced);
        for change in std::mem::take(&mut platter.since).into_iter().flat_map(Change::sectors) {
            if random.below(2) == 0 {
                change.apply(&mut bytes);
            }
        }
        (platter.seen, platter.synced, platter.power) = (bytes.clone(), bytes, power);
    }
}

impl Platter {
    fn spend(&mut self) -> Result<(), io::Error> {
        self.power = self.power.saturating_sub(1);
        if self.power == 0 { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) -> Result<(), io::Error> {
        // The one during which the power goes may be done in part.
        self.since.push(change.clone());
        self.spend()?;
        change.apply(&mut self.seen);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.platter().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let (platter, at) = (self.platter(), usize::try_from(offset).expect("small"));
        let bytes =
            platter.seen.get(at..at + out.len()).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.platter().change(Change::Len(usize::try_from(len).expect("small")))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut platter = self.platter();
        platter.spend()?;
        if !platter.lies {
            for change in std::mem::take(&mut platter.since) {
                change.apply(&mut platter.synced);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.platter().change(Change::Write(usize::try_from(offset).expect("small"), data.to_vec()))
    }
}

/// Numbers that look random, the same ones for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn open(disk: &Disk) -> Result<Keeper, String> {
    let store = Redb::on(disk.clone(), PathBuf::from("a disk in memory")).map_err(|error| format!("{error:?}"))?;
    Keeper::open(Box::new(store), providers(&[("env", HSM)]), admin()).map_err(|error| format!("{error:?}"))
}

/// Works until the power goes, again and again; none: something that was acknowledged is gone, or nothing opens.
#[expect(clippy::disallowed_methods, reason = "a setting of the test")]
fn live_through_cuts(disk: &Disk, seed: u64) -> Result<usize, String> {
    let mut random = Random(seed);
    let (mut known, mut unsure) = (BTreeSet::<String>::new(), None::<String>);
    // A file gets its name when it is whole: half of one is left alone, and another one begun.
    let mut is_whole = false;
    let cuts = std::env::var("CUTS").map_or(60, |cuts| cuts.parse().expect("CUTS is a number"));
    for cut in 1..=cuts {
        let power = 1 + random.below(120);
        disk.restart(power, &mut random);
        if !is_whole {
            disk.clear();
        }
        is_whole = is_whole || Redb::on(disk.clone(), PathBuf::new()).is_ok();
        let mut keeper = match open(disk) {
            Ok(keeper) => keeper,
            // It may also go while the file is made or repaired.
            Err(_) if disk.is_off() => continue,
            Err(error) => return Err(format!("cut {cut}: {error}")),
        };
        let found: BTreeSet<String> = keeper
            .snapshot()
            .enclaves
            .values()
            .flat_map(|enclave| enclave.keys.keys())
            .map(ToString::to_string)
            .collect();
        // What was asked for last and not acknowledged has happened or not.
        known.extend(unsure.take().filter(|name| found.contains(name)));
        if found != known {
            return Err(format!("cut {cut}: {} keys of {}", found.len(), known.len()));
        }
        if keeper.snapshot().enclaves.iter().next().is_none()
            && change(&mut keeper, admin().identity, "", &[create_enclave("e")]).is_err()
        {
            continue;
        }
        for n in 0.. {
            let name = format!("k-{cut}-{n}");
            if change(&mut keeper, admin().identity, "e", &[create_key(&name)]).is_err() {
                assert!(disk.is_off(), "only without power");
                unsure = Some(name);
                break;
            }
            known.insert(name);
        }
    }
    Ok(known.len())
}

#[test]
fn what_was_acknowledged_survives_any_power_cut() {
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) | 1;
    let kept = live_through_cuts(&Disk::default(), seed).unwrap_or_else(|loss| panic!("seed {seed}: {loss}"));
    assert!(kept > 0, "seed {seed}: only {kept} keys were made");
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    let disk = Disk::default();
    disk.platter().lies = true;
    live_through_cuts(&disk, 7).expect_err("something is lost");
}
