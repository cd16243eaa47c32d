//! Older spellings: settings that only earlier versions of the archived server read.

use super::path::{Path, Step};
use super::read::Problem;
use super::yaml::{Node, Value};

/// Keys that meant something once: they are left out, with a warning. `*` is any key.
const IGNORED: [(&str, &str); 5] = [
    ("policy.*.paths", "ignored: only KES up to v0.14 knew it; nothing is allowed by it, so write 'allow: [ … ]'"),
    ("keystore.vault.name", "ignored: only older versions of KES knew it; remove it"),
    ("keystore.openbao.name", "ignored: only older versions of KES knew it; remove it"),
    ("keystore.vault.approle.retry", "ignored: only older versions of KES knew it; remove it"),
    ("keystore.openbao.approle.retry", "ignored: only older versions of KES knew it; remove it"),
];

/// Keys that mean nothing any more, and what to write instead.
const REFUSED: [(&str, &str); 3] = [
    ("root", "KES up to v0.14 named the admin so; write 'admin: { identity: … }'"),
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
        Some(keys) if matches!(keys.value.value, Value::Map(_)) => Err(Problem::at(
            Path::of("keys"),
            "must be a list of keys to create, such as [ { name: my-key } ]; \
             KES up to v0.11 had the key store here, which stands under 'keystore' now",
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
