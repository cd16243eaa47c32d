//! Older spellings: what the file says that only earlier versions of the archived server knew.

use super::path::{Path, Step};
use super::read::Problem;
use super::yaml::{Node, Value};

/// Keys that meant something once: they are left out, with a warning. `*` is any key.
const IGNORED: [(&str, &str); 5] = [
    ("policy.*.paths", "ignored since KES v0.14, so nothing is allowed by it; write 'allow: [ … ]'"),
    ("keystore.vault.name", "ignored since KES v0.12; remove it"),
    ("keystore.openbao.name", "ignored since KES v0.12; remove it"),
    ("keystore.vault.approle.retry", "ignored; a failed login is tried again by itself; remove it"),
    ("keystore.openbao.approle.retry", "ignored; a failed login is tried again by itself; remove it"),
];

/// Keys that mean nothing any more, and what to write instead.
const REFUSED: [(&str, &str); 3] = [
    ("root", "is called 'admin: { identity: … }' since KES v0.17"),
    ("keystore.generic", "key store plugins are gone; name one of the key stores that are built in"),
    ("keystore.kes", "another key server cannot be a key store; 'claviger migrate' copies its keys"),
];

/// Refuses keys that would be misunderstood.
pub(super) fn refuse(root: &Node) -> Result<(), Problem> {
    for (keys, advice) in REFUSED {
        let path = Path::of(keys);
        if find(root, &path).is_some() {
            return Err(Problem::at_key(path, advice));
        }
    }
    match root.entry("keys") {
        Some(keys) if matches!(keys.value.value, Value::Map(_)) => Err(Problem::at_key(
            Path::of("keys"),
            "must be a list of keys to create, such as [ { name: my-key } ]; \
             the key store is called 'keystore' since KES v0.12",
        )),
        _ => Ok(()),
    }
}

/// The paths of keys that are ignored, and why.
pub(super) fn ignored(root: &Node) -> Vec<(Path, &'static str)> {
    let mut found = Vec::new();
    for (keys, why) in IGNORED {
        match keys.split_once(".*.") {
            None => found.push((Path::of(keys), why)),
            Some((section, key)) => {
                let names = root.entry(section).map_or(&[][..], |entry| entry.value.entries());
                found.extend(names.iter().map(|name| (Path::of(section).key(&*name.key).key(key), why)));
            }
        }
    }
    found.retain(|(path, _)| find(root, path).is_some());
    found
}

/// Takes the value at `path` out.
pub(super) fn remove(root: &mut Node, path: &Path) {
    if let Some((parent, key)) = path.parent() {
        root.find_mut(&parent).and_then(|node| node.take(key));
    }
}

fn find<'n>(root: &'n Node, path: &Path) -> Option<&'n Node> {
    path.steps().iter().try_fold(root, |node, step| match step {
        Step::Key(key) => node.entry(key).map(|entry| &entry.value),
        Step::Index(_) => None,
    })
}
