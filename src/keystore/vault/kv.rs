//! The K/V engine: the paths of keys, and what the engine's answers mean.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::api::{Answer, Ask, Entry, Field, LIST};
use super::{Connection, Version};
use crate::crypto::Blob;
use crate::crypto::buffer::to_json;
use crate::keystore::{Access, Error};

/// The K/V engine below a prefix.
#[derive(Debug)]
pub(super) struct Kv {
    pub(super) connection: Connection,
    pub(super) engine: String,
    /// Without slashes at its ends; may be empty.
    pub(super) prefix: String,
    pub(super) version: Version,
}

/// How long version 1 waits after a write for other writers that saw the name free before it. Neither a compare-and-set
/// nor a policy without `update` stops them.
const SETTLED: Duration = Duration::from_millis(200);

/// A sample name for checks of rights, which are the same for every entry.
const ANY: &str = "any-key";

/// Version 2 puts an entry into one more object, which also marks deleted versions.
#[derive(Deserialize)]
struct Versioned {
    data: Option<Entry>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct Written {
    version: u64,
}

impl Kv {
    /// The value under `name`.
    pub(super) async fn get(&self, name: &str) -> Result<Blob, Error> {
        let (path, ask);
        let entry = match self.version {
            Version::V1 => {
                path = self.path("", name);
                ask = self.ask("GET", &path, None);
                let answer = self.connection.send::<Entry>(ask).await?;
                self.judge(ask, &answer, "read")?;
                answer.data
            }
            Version::V2 => {
                path = format!("{}?version=1", self.path("data/", name));
                ask = self.ask("GET", &path, None);
                let answer = self.connection.send::<Versioned>(ask).await?;
                if answer.status == 404 && answer.data.is_some() {
                    return Err(ask.failed(
                        "version 1 of this entry was deleted or destroyed; if it was deleted, get it back with \
                         'vault kv undelete -versions=1'; to free the name, remove its metadata",
                    ));
                }
                self.judge(ask, &answer, "read")?;
                answer.data.and_then(|versioned| versioned.data)
            }
        };
        match entry.and_then(|mut entry| entry.remove(name)) {
            Some(Field::Text(value)) if !value.expose_secret().is_empty() => {
                Ok(value.expose_secret().as_bytes().to_vec().into())
            }
            _ => Err(ask.failed(format!("the entry has no field '{name}' with a key in it"))),
        }
    }

    /// Stores `value` if `name` is free.
    pub(super) async fn create(&self, name: &str, value: &SecretString) -> Result<(), Error> {
        match self.version {
            Version::V1 => self.create_v1(name, value).await,
            Version::V2 => self.create_v2(name, value).await,
        }
    }

    /// Version 1 has no compare-and-set. So this reads the name before the write, and again after other writers that
    /// saw it free have written. The last writer wins, and all writers see that.
    async fn create_v1(&self, name: &str, value: &SecretString) -> Result<(), Error> {
        if self.exists(name).await? {
            return Err(Error::Exists);
        }
        let path = self.path("", name);
        let body = entry(name, value);
        let ask = self.ask("PUT", &path, Some(&body));
        let answer = self.connection.send::<serde::de::IgnoredAny>(ask).await?;
        if answer.status == 403 && self.exists(name).await? {
            return Err(Error::Exists);
        }
        self.judge(ask, &answer, "create")?;
        tokio::time::sleep(SETTLED).await;
        let stored = self.get(name).await.map_err(|error| match error {
            Error::NotFound => ask.failed("what was just written is not there"),
            error => error,
        })?;
        let ours = Blob::from(value.expose_secret().as_bytes().to_vec());
        if stored.is_same(&ours) { Ok(()) } else { Err(Error::Exists) }
    }

    async fn create_v2(&self, name: &str, value: &SecretString) -> Result<(), Error> {
        let path = self.path("data/", name);
        let data = entry(name, value);
        // Only if the name has no version, not even a deleted one.
        let mut body = Zeroizing::new(Vec::with_capacity(data.len() + 64));
        body.extend_from_slice(br#"{"options":{"cas":0},"data":"#);
        body.extend_from_slice(&data);
        body.push(b'}');
        let ask = self.ask("PUT", &path, Some(&body));
        let answer = self.connection.send::<Written>(ask).await?;
        match answer.status {
            400 if answer.errors.iter().any(|error| error.contains("check-and-set")) => return Err(Error::Exists),
            403 if self.exists(name).await? => return Err(Error::Exists),
            _ => {}
        }
        self.judge(ask, &answer, "create")?;
        match answer.data {
            Some(Written { version: 1 }) => Ok(()),
            // The answer does not confirm the write: the caller must read the key.
            _ => Err(ask.unreachable("the answer does not say that version 1 was written")),
        }
    }

    /// Overwrites an entry. Only for version 1, where readers see the new value at once.
    pub(super) async fn overwrite(&self, name: &str, value: &SecretString) -> Result<(), Error> {
        let path = self.path("", name);
        let body = entry(name, value);
        let ask = self.ask("PUT", &path, Some(&body));
        let answer = self.connection.send::<serde::de::IgnoredAny>(ask).await?;
        self.judge(ask, &answer, "update")
    }

    /// Removes an entry and all its versions. The engine does not say whether there was one.
    pub(super) async fn delete(&self, name: &str) -> Result<(), Error> {
        let path = match self.version {
            Version::V1 => self.path("", name),
            Version::V2 => self.path("metadata/", name),
        };
        let ask = self.ask("DELETE", &path, None);
        let answer = self.connection.send::<serde::de::IgnoredAny>(ask).await?;
        self.judge(ask, &answer, "delete")
    }

    /// The names of all entries; folders end with a slash.
    pub(super) async fn list(&self) -> Result<Vec<String>, Error> {
        let path = match self.version {
            Version::V1 => self.path("", ""),
            Version::V2 => self.path("metadata/", ""),
        };
        let path = format!("{path}{LIST}");
        let ask = self.ask("GET", &path, None);
        let answer = self.connection.send::<Keys>(ask).await?;
        match self.judge(ask, &answer, "list") {
            Err(Error::NotFound) => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(()) => match answer.data {
                Some(Keys { keys }) => Ok(keys),
                None => Err(ask.failed("the answer holds no names")),
            },
        }
    }

    /// Checks that the mount has the configured version. A create with the other version's path would succeed and store
    /// rubbish.
    pub(super) async fn check_version(&self) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Mount {
            #[serde(rename = "type")]
            kind: String,
            options: Option<Options>,
        }
        #[derive(Deserialize)]
        struct Options {
            version: Option<String>,
        }
        let path = format!("sys/internal/ui/mounts/{}", self.engine);
        let ask = self.ask("GET", &path, None);
        let answer = self.connection.send::<Mount>(ask).await?;
        let Some(Mount { kind, options }) = answer.data.filter(|_| answer.status == 200) else {
            return Err(ask.failed(format!(
                "there is no K/V engine at '{}' that this token has a right to (HTTP {}); the server needs this policy:\n{}",
                self.engine,
                answer.status,
                self.policy(Access::Create)
            )));
        };
        if kind != "kv" && kind != "generic" {
            return Err(ask.failed(format!("the engine at '{}' is of the type '{kind}', not 'kv'", self.engine)));
        }
        let version = options.and_then(|options| options.version);
        let is_v2 = version.as_deref() == Some("2");
        match (is_v2, self.version) {
            (false, Version::V1) | (true, Version::V2) => Ok(()),
            (true, Version::V1) => {
                Err(ask.failed(format!("the engine at '{}' is K/V version 2; write 'version: v2'", self.engine)))
            }
            (false, Version::V2) => {
                Err(ask.failed(format!("the engine at '{}' is K/V version 1; write 'version: v1'", self.engine)))
            }
        }
    }

    /// The rights that `access` needs, by path.
    pub(super) fn needs(&self, access: Access) -> Vec<(String, Vec<&'static str>)> {
        let (entry, list) = match self.version {
            Version::V1 => (self.any_entry(), self.path("", "")),
            Version::V2 => (self.any_entry(), self.path("metadata/", "")),
        };
        let mut on_entry = vec!["read"];
        if access >= Access::Create {
            on_entry.push("create");
        }
        let mut needs = vec![(list, vec!["list"])];
        match (self.version, access) {
            (_, Access::Read | Access::Create) => {}
            (Version::V1, Access::Serve) => on_entry.push("delete"),
            (Version::V1, Access::Replace) => on_entry.push("update"),
            // Replacing a key deletes the name and creates it again.
            (Version::V2, _) => needs.push((self.path("metadata/", ANY), vec!["delete"])),
        }
        needs.push((entry, on_entry));
        needs
    }

    /// The path of a sample entry, for checks of rights.
    pub(super) fn any_entry(&self) -> String {
        match self.version {
            Version::V1 => self.path("", ANY),
            Version::V2 => self.path("data/", ANY),
        }
    }

    /// The policy that gives every right for `access`, and the right to delete, for the operator to paste.
    pub(super) fn policy(&self, access: Access) -> String {
        let rule = |part, rights| format!("path \"{}\" {{ capabilities = [{rights}] }}", self.path(part, "*"));
        match (self.version, access) {
            (Version::V1, Access::Replace) => rule("", r#""create", "read", "update", "delete", "list""#),
            (Version::V1, _) => rule("", r#""create", "read", "delete", "list""#),
            (Version::V2, _) => {
                format!("{}\n{}", rule("data/", r#""create", "read""#), rule("metadata/", r#""delete", "list""#))
            }
        }
    }

    async fn exists(&self, name: &str) -> Result<bool, Error> {
        match self.get(name).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Judges an answer as far as that is the same for all requests. `right` is the one that the request needs.
    fn judge<D>(&self, ask: Ask<'_>, answer: &Answer<D>, right: &str) -> Result<(), Error> {
        let errors = answer.errors.join("; ");
        match answer.status {
            200 | 204 => Ok(()),
            403 if answer.token_is_bad => Err(ask.failed(super::BAD_TOKEN)),
            403 => Err(ask.failed(format!(
                "the right '{right}' is missing ({errors}); the server needs this policy:\n{}",
                self.policy(Access::Create)
            ))),
            // An engine that was just mounted or upgraded is not ready yet.
            400 if errors.contains("will resume service") => Err(ask.unreachable(errors)),
            404 if answer.warnings.iter().any(|warning| warning.contains("versioned K/V")) => {
                Err(ask.failed(format!("the engine at '{}' is K/V version 2; write 'version: v2'", self.engine)))
            }
            404 if answer.errors.iter().any(|error| error.contains("no handler for route")) => {
                Err(ask.failed(format!("there is no engine at '{}'", self.engine)))
            }
            // The only answer that means that nothing exists.
            404 if answer.errors.is_empty() && answer.warnings.is_empty() && answer.data.is_none() => {
                Err(Error::NotFound)
            }
            status => Err(ask.failed(format!("HTTP {status}: {errors}"))),
        }
    }

    fn ask<'a>(&'a self, method: &'static str, path: &'a str, body: Option<&'a Zeroizing<Vec<u8>>>) -> Ask<'a> {
        self.connection.ask(method, path, body)
    }

    /// `<engine>/<part><prefix>/<name>`
    fn path(&self, part: &str, name: &str) -> String {
        match self.prefix.as_str() {
            "" => format!("{}/{part}{name}", self.engine),
            prefix => format!("{}/{part}{prefix}/{name}", self.engine),
        }
    }
}

fn entry(name: &str, value: &SecretString) -> Zeroizing<Vec<u8>> {
    to_json(&std::collections::BTreeMap::from([(name, value.expose_secret())]), 6 * value.expose_secret().len() + 64)
}
