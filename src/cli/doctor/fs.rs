//! `fs.…`: the directory of keys, file by file.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Report, count, some};
use crate::crypto::Key;
use crate::keystore::fs::{Config, Store};
use crate::keystore::{Access, Error, KeyStore, Listing};
use crate::name::KeyName;
use crate::telemetry::log::causes;

/// Permissions that let the group or everybody read, write or run.
const OTHERS: u32 = 0o077;
/// Permissions that let the group or everybody write.
const OTHERS_WRITE: u32 = 0o022;

/// Checks the directory, and reads every key in it through `keys`.
pub(super) async fn check(config: &Config, keys: &dyn KeyStore, access: Access, report: &mut Report) {
    if let Err(error) = look(config, keys, access, report).await {
        report.failed("fs.keys", causes(&error), "correct what the message names, then run this again");
    }
}

async fn look(config: &Config, opened: &dyn KeyStore, access: Access, report: &mut Report) -> Result<(), Error> {
    // If the directory has just been removed, the next check of the store reports it.
    let Some(store) = Store::open_existing(config).await? else { return Ok(()) };
    let listing = store.list("").await?;
    rights(&config.path, store.check(access).await, &listing, report);
    foreign(&listing, report);
    keys(opened, &listing.names, report).await;
    leftovers(&store.leftovers().await?, report);
    Ok(())
}

fn rights(directory: &Path, check: Result<(), Error>, listing: &Listing, report: &mut Report) {
    const ID: &str = "fs.rights";
    if let Err(error) = check {
        let fix = format!("run the server as the user whom '{}' belongs to, or chown it", directory.display());
        report.failed(ID, causes(&error), fix);
    }
    if mode(directory) & OTHERS_WRITE != 0 {
        let message = format!("users other than its owner can delete and replace keys in '{}'", directory.display());
        report.warning(ID, message, format!("chmod go-w '{}'", directory.display()));
    }
    let open = |name: &&KeyName| mode(&directory.join(name.as_str())) & OTHERS != 0;
    let open: Vec<_> = listing.names.iter().filter(open).map(ToString::to_string).collect();
    if !open.is_empty() {
        let message =
            format!("users other than the owner have access to {}: {}", count(open.len(), "key"), some(&open));
        let fix = format!(
            "run 'chmod go=' on these files in '{}'; if others may have read them, make new keys",
            directory.display()
        );
        report.warning(ID, message, fix);
    }
    if report.is_clean(ID) {
        report.ok(ID, "this user may read and write, and nobody else has access to a key");
    }
}

/// The permissions of the file at a path; 0 when they cannot be read.
fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0, |found| found.mode())
}

fn foreign(listing: &Listing, report: &mut Report) {
    const ID: &str = "fs.foreign";
    if listing.foreign.is_empty() {
        return report.ok(ID, "nothing but keys in the directory");
    }
    let found: Vec<_> = listing.foreign.iter().map(|entry| format!("'{}' ({})", entry.name, entry.reason)).collect();
    let what = if found.len() == 1 { "1 entry that is no key" } else { "entries that are no keys" };
    report.warning(ID, format!("{what}: {}", some(&found)), "move it out of the directory of keys");
}

async fn keys(store: &dyn KeyStore, names: &[KeyName], report: &mut Report) {
    const ID: &str = "fs.keys";
    if names.is_empty() {
        let message = "there are no keys: an object store would create a new one, which cannot decrypt what an older one encrypted";
        let fix = "when there should be keys, correct keystore.fs.path, mount what belongs there, or restore a backup";
        return report.warning(ID, message, fix);
    }
    let mut broken = Vec::new();
    for name in names {
        if let Err(why) = read(store, name).await {
            broken.push(format!("'{name}' ({why})"));
        }
    }
    if broken.is_empty() {
        return report.ok(ID, format!("{}, each readable", count(names.len(), "key")));
    }
    let message = format!("{} of {} cannot be used: {}", broken.len(), count(names.len(), "key"), some(&broken));
    report.failed(ID, message, "restore the files from a backup, and let the server's user read them; delete none");
}

/// Reads and decodes a key. A key that is deleted meanwhile is no error.
async fn read(store: &dyn KeyStore, name: &KeyName) -> Result<(), String> {
    match store.get(name).await {
        Ok(value) => Key::parse(&value).map(drop).map_err(|error| error.to_string()),
        Err(Error::NotFound) => Ok(()),
        Err(error) => Err(causes(&error)),
    }
}

fn leftovers(found: &[String], report: &mut Report) {
    const ID: &str = "fs.leftovers";
    if found.is_empty() {
        return report.ok(ID, "no interrupted write has left a file");
    }
    let message = format!("interrupted writes have left {}: {}", count(found.len(), "file"), some(found));
    report.warning(ID, message, "start the server, which removes them; nothing in them was ever acknowledged");
}
