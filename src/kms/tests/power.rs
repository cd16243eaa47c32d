//! Simulates power cuts: synced data stays; of the sectors written since, a random part stays.
//!
//! The environment variable `CUTS` sets how many.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::*;
use crate::kms::store::{Nameless, Place, Redb};

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// A machine whose power goes. Every clone is the same one.
#[derive(Debug, Clone, Default)]
struct Machine(Arc<Mutex<Power>>);

#[derive(Debug, Default)]
struct Power {
    /// How many more changes and syncs there is power for.
    left: u64,
    /// Whether its disk says that it has synced when it has not.
    lies: bool,
}

impl Machine {
    fn power(&self) -> MutexGuard<'_, Power> {
        self.0.lock().expect("nobody panics with it")
    }

    fn is_off(&self) -> bool {
        self.power().left == 0
    }

    /// Does something that takes power, if there is some.
    fn spend(&self) -> Result<(), io::Error> {
        let mut power = self.power();
        power.left = power.left.saturating_sub(1);
        if power.left == 0 { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

/// A file in memory, of which every clone is the same one.
#[derive(Debug, Clone)]
struct Disk(Machine, Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What is read while there is power.
    seen: Vec<u8>,
    /// What is there for sure after a cut.
    synced: Vec<u8>,
    /// What happened since the last sync.
    since: Vec<Change>,
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
        self.1.lock().expect("nobody panics with it")
    }

    fn change(&self, change: Change) -> Result<(), io::Error> {
        let mut platter = self.platter();
        // The one during which the power goes may be done in part.
        platter.since.push(change.clone());
        self.0.spend()?;
        change.apply(&mut platter.seen);
        Ok(())
    }

    /// What is there after a cut.
    fn restart(&self, random: &mut Random) {
        let mut platter = self.platter();
        let mut bytes = std::mem::take(&mut platter.synced);
        for change in std::mem::take(&mut platter.since).into_iter().flat_map(Change::sectors) {
            if random.below(2) == 0 {
                change.apply(&mut bytes);
            }
        }
        (platter.seen, platter.synced) = (bytes.clone(), bytes);
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
        self.change(Change::Len(usize::try_from(len).expect("small")))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.spend()?;
        if !self.0.power().lies {
            let mut platter = self.platter();
            for change in std::mem::take(&mut platter.since) {
                change.apply(&mut platter.synced);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.change(Change::Write(usize::try_from(offset).expect("small"), data.to_vec()))
    }
}

/// A directory: which file has the name, as is seen, and as is sure after a cut. Every clone is the same one.
#[derive(Debug, Clone, Default)]
struct Folder(Machine, Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    begun: Option<Disk>,
    seen: Option<Disk>,
    synced: Option<Disk>,
}

impl Folder {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.1.lock().expect("nobody panics with it")
    }

    /// Cuts the power where it is still on, and turns it on for `power` changes.
    fn restart(&self, power: u64, random: &mut Random) {
        let mut names = self.names();
        // A name that was not synced is where it was, or where it was to be.
        let name = if random.below(2) == 0 { names.seen.take() } else { names.synced.take() };
        name.iter().for_each(|disk| disk.restart(random));
        (names.begun, names.seen, names.synced) = (None, name.clone(), name);
        self.0.power().left = power;
    }
}

impl Place for Folder {
    fn path(&self) -> &Path {
        Path::new("a disk in memory")
    }

    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        Ok(self.names().seen.clone().map(|disk| -> Box<dyn StorageBackend> { Box::new(disk) }))
    }

    fn begin(&self) -> io::Result<(Box<dyn StorageBackend>, Nameless)> {
        let disk = Disk(self.0.clone(), Arc::default());
        self.names().begun = Some(disk.clone());
        Ok((Box::new(disk), Nameless::new()))
    }

    fn install(&self, _: &Nameless, is_first: bool) -> io::Result<()> {
        let mut names = self.names();
        assert_eq!(names.seen.is_none(), is_first);
        names.seen = names.begun.take();
        self.0.spend()
    }

    fn discard(&self, _: &Nameless) {
        self.names().begun = None;
    }

    fn settle(&self) -> io::Result<()> {
        self.0.spend()?;
        if !self.0.power().lies {
            let mut names = self.names();
            names.synced = names.seen.clone();
        }
        Ok(())
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

fn open(folder: &Folder) -> Result<Keeper, String> {
    let store = Redb::at(Arc::new(folder.clone())).map_err(|error| format!("{error:?}"))?;
    Keeper::open(Box::new(store), providers(&[("env", HSM)]), admin()).map_err(|error| format!("{error:?}"))
}

/// Works until the power goes, again and again; none: something that was acknowledged is gone, or nothing opens.
#[expect(clippy::disallowed_methods, reason = "a setting of the test")]
fn live_through_cuts(folder: &Folder, seed: u64) -> Result<usize, String> {
    let mut random = Random(seed);
    let (mut known, mut unsure) = (BTreeSet::<String>::new(), None::<String>);
    let cuts = std::env::var("CUTS").map_or(60, |cuts| cuts.parse().expect("CUTS is a number"));
    for cut in 1..=cuts {
        let power = 1 + random.below(240);
        folder.restart(power, &mut random);
        let mut keeper = match open(folder) {
            Ok(keeper) => keeper,
            // It may also go while the file is made or repaired.
            Err(_) if folder.0.is_off() => continue,
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
            // Now and then everything is written again, under another root key.
            if n % 4 == 2 && keeper.rotate_root().is_err() {
                break;
            }
            let name = format!("k-{cut}-{n}");
            if change(&mut keeper, admin().identity, "e", &[create_key(&name)]).is_err() {
                unsure = Some(name);
                break;
            }
            known.insert(name);
        }
        if !folder.0.is_off() {
            return Err(format!("cut {cut}: something failed though there was power"));
        }
    }
    Ok(known.len())
}

#[test]
fn what_was_acknowledged_survives_any_power_cut_also_while_everything_is_written_again() {
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) | 1;
    let kept = live_through_cuts(&Folder::default(), seed).unwrap_or_else(|loss| panic!("seed {seed}: {loss}"));
    assert!(kept > 0, "seed {seed}: only {kept} keys were made");
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    let folder = Folder::default();
    folder.0.power().lies = true;
    live_through_cuts(&folder, 7).expect_err("something is lost");
}
