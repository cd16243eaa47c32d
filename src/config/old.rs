//! Older spellings: settings that only earlier versions of the archived server read.

use super::path::{Path, Step};
use super::read::Problem;
use super::yaml::{Node, Value};

/// What is said of a key that has no meaning any more.
const NO_MEANING: &str = "ignored: only older versions of KES knew it; remove it";

/// Keys that meant something once: they are left out, with a warning. `*` is any key.
const IGNORED: [(&str, &str); 7] = [
    ("policy.*.paths", "ignored: only KES up to v0.14 knew it; nothing is allowed by it, so write 'allow: [ … ]'"),
    ("keystore.vault.name", NO_MEANING),
    ("keystore.openbao.name", NO_MEANING),
    ("keystore.vault.approle.retry", NO_MEANING),
    ("keystore.openbao.approle.retry", NO_MEANING),
    ("keystore.vault.kubernetes.retry", NO_MEANING),
    ("keystore.openbao.kubernetes.retry", NO_MEANING),
];

/// What is said of the sections of a server with enclaves.
const ENCLAVES: &str = "only KES v0.21 to 2023 had enclaves; 'claviger kms server' keeps keys in enclaves now";

/// Keys that mean nothing any more, and what to write instead.
const REFUSED: [(&str, &str); 5] = [
    ("enclave", ENCLAVES),
    ("system", ENCLAVES),
    ("unseal", ENCLAVES),
    ("keystore.generic", "key store plugins are gone; name one of the key stores that are built in"),
    ("keystore.kes", "another key server cannot be a key store; 'claviger migrate' copies its keys"),
];

/// Keys that would be misunderstood.
pub(super) fn refuse(root: &Node) -> Vec<Problem> {
    let mut refused = Vec::new();
    if root.entry("root").is_some() && !has_admin(root) {
        let advice = "KES up to v0.14 named the admin so; write 'admin: { identity: … }'";
        refused.push(Problem::at_key(Path::of("root"), advice));
    }
    let gone = REFUSED.iter().map(|(keys, advice)| (Path::of(keys), advice));
    refused.extend(
        gone.filter(|(path, _)| find(root, path).is_some()).map(|(path, advice)| Problem::at_key(path, *advice)),
    );
    if root.entry("keys").is_some_and(|keys| matches!(keys.value.value, Value::Map(_))) {
        refused.push(Problem::at(
            Path::of("keys"),
            "must be a list of keys to create, such as [ { name: my-key } ]; \
             KES up to v0.11 had the key store here, which stands under 'keystore' now",
        ));
    }
    refused
}

/// Whether the admin is named as it is today.
fn has_admin(root: &Node) -> bool {
    find(root, &Path::of("admin.identity")).is_some_and(|admin| !admin.is_null())
}

/// The paths of keys that are ignored, and why.
pub(super) fn ignored(root: &Node) -> Vec<(Path, &'static str)> {
    let mut found = Vec::new();
    if has_admin(root) {
        found.push((Path::of("root"), "ignored: admin.identity says who the admin is; remove it"));
    }
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
