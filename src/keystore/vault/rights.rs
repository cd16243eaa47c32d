//! Rights: checks what the token may do before anything depends on it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::kv::Kv;
use super::{Connection, Version};
use crate::crypto::buffer::to_json;
use crate::keystore::Error;

/// The rights that the session's token has to some paths; none: it may not ask for them.
struct Rights(Option<HashMap<String, Vec<String>>>);

impl Rights {
    fn allow(&self, path: &str, right: &str) -> bool {
        let Some(rights) = self.0.as_ref().and_then(|paths| paths.get(path)) else { return true };
        rights.iter().any(|granted| granted == right || granted == "root")
    }

    fn are_known(&self) -> bool {
        self.0.is_some()
    }
}

/// Checks that the token has all of these rights. `policy` would give them.
pub(super) async fn check(
    connection: &Connection,
    needed: Vec<(String, Vec<&'static str>)>,
    policy: &str,
) -> Result<(), Error> {
    let rights = ask(connection, needed.iter().map(|(path, _)| path.clone()).collect()).await?;
    let missing: Vec<_> = needed
        .iter()
        .flat_map(|(path, needs)| needs.iter().map(move |right| (path, right)))
        .filter(|(path, right)| !rights.allow(path, right))
        .map(|(path, right)| format!("'{right}' on '{path}'"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Error::Failed(format!("missing rights: {missing}; this policy gives them all:\n{policy}").into()))
}

/// A warning when two creators of one name could both believe that theirs is the key.
pub(super) async fn warning_of_update(kv: &Kv) -> Result<Option<String>, Error> {
    if kv.version != Version::V1 {
        return Ok(None);
    }
    let path = kv.any_entry();
    let rights = ask(&kv.connection, vec![path.clone()]).await?;
    let may_overwrite = rights.are_known() && rights.allow(&path, "update");
    Ok(may_overwrite.then(|| {
        format!(
            "K/V version 1 has no compare-and-set, and this token has the right 'update' on '{path}': a server that \
             stalls while it creates a key may overwrite that of another. Take 'update' from the policy, or use version 2"
        )
    }))
}

async fn ask(connection: &Connection, paths: Vec<String>) -> Result<Rights, Error> {
    #[derive(Serialize)]
    struct Request {
        paths: Vec<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Rights(Vec<String>),
        Other(serde::de::IgnoredAny),
    }
    let body = to_json(&Request { paths }, 1024);
    let ask = connection.ask("POST", "sys/capabilities-self", Some(&body));
    let answer = connection.send::<HashMap<String, Value>>(ask).await?;
    let paths = answer.data.filter(|_| answer.status == 200).map(|data| {
        let lists = data.into_iter().filter_map(|(path, value)| match value {
            Value::Rights(rights) => Some((path, rights)),
            Value::Other(_) => None,
        });
        lists.collect()
    });
    Ok(Rights(paths))
}
