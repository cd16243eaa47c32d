//! What a request asks for: its enclave, its operation, and the right that it takes.

use std::borrow::Cow;

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::Mounts;
use crate::kms::Action;
use crate::name::{SecretPath, TransitName};

/// A request as its method and path say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The namespace at the head of the path.
    pub(super) namespace: Option<String>,
    pub(super) operation: Operation,
}

/// What a request does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    Health,
    SealStatus,
    Leader,
    Initialized,
    Login,
    LookupSelf,
    RenewSelf,
    RevokeSelf,
    Capabilities,
    /// With the path below `sys/internal/ui/mounts`.
    Mount(String),
    ListKeys,
    /// Something with one key.
    Key(Use, TransitName),
    /// Something with one entry of the key/value engine.
    Secret(SecretUse, SecretPath),
    /// With the folder, which is empty or ends with a slash.
    ListSecrets(String),
    /// Not there for this method, and the right that the path takes.
    WrongMethod(Right),
    /// Below a mount, and nothing.
    Unsupported,
    /// Below no mount.
    NoRoute(String),
    /// What no client may have.
    Forbidden,
}

/// What is done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Create,
    Configure,
    Rotate,
    Trim,
    Delete,
    Encrypt,
    Decrypt,
    Rewrap,
    DataKey(DataKey),
    Hmac(Hash),
    Verify(Hash),
}

/// What is done with an entry of the key/value engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretUse {
    Read,
    Write,
    Delete,
    DeleteVersions,
    Undelete,
    Destroy,
    Metadata,
    Remove,
}

/// What a data key is answered as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataKey {
    Plaintext,
    Wrapped,
    /// Neither.
    Invalid,
}

/// The hash that the path of an HMAC names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    /// The body may name one.
    Unnamed,
    Sha256,
    Unsupported,
}

/// What a caller must be allowed, before anything else is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Right {
    /// Nothing: anybody may ask.
    Open,
    /// To be known in the enclave.
    Known,
    /// One of these actions on something with this name.
    Any(&'static [Action], String),
    /// Any rule for this action.
    Rule(Action),
    /// Nobody has it.
    Nobody,
}

impl Use {
    /// Whether it encrypts, decrypts or signs, rather than that it is about the key itself.
    pub(super) fn uses_the_key(self) -> bool {
        self.encrypts() || matches!(self, Self::Decrypt | Self::Verify(_))
    }

    /// Whether it makes something that the key must open, or know again, later.
    pub(super) fn encrypts(self) -> bool {
        matches!(self, Self::Encrypt | Self::Rewrap | Self::DataKey(_) | Self::Hmac(_))
    }

    /// The actions of which one must be allowed. The first is that of the audit event.
    pub(super) fn actions(self) -> &'static [Action] {
        match self {
            Self::Read => &[Action::KeyStatus],
            Self::Create | Self::Rotate => &[Action::KeyCreate],
            // Which of them it takes is said by the body; the writer knows.
            Self::Configure => &[Action::KeyCreate, Action::KeyDelete],
            Self::Trim | Self::Delete => &[Action::KeyDelete],
            Self::Encrypt | Self::Rewrap => &[Action::KeyEncrypt],
            Self::Decrypt => &[Action::KeyDecrypt],
            Self::DataKey(_) => &[Action::KeyGenerate],
            Self::Hmac(_) | Self::Verify(_) => &[Action::KeyMac],
        }
    }
}

impl SecretUse {
    /// The action that must be allowed.
    pub(super) fn action(self) -> Action {
        self.actions()[0]
    }

    fn actions(self) -> &'static [Action] {
        match self {
            Self::Read | Self::Metadata => &[Action::SecretRead],
            Self::Write | Self::Undelete => &[Action::SecretWrite],
            Self::Delete | Self::DeleteVersions | Self::Destroy | Self::Remove => &[Action::SecretDelete],
        }
    }
}

impl Operation {
    /// The right that it takes.
    pub(super) fn right(&self) -> Right {
        match self {
            Self::Health | Self::SealStatus | Self::Leader | Self::Initialized | Self::Login => Right::Open,
            Self::Key(what, name) => Right::Any(what.actions(), name.to_string()),
            Self::ListKeys => Right::Rule(Action::KeyList),
            Self::Secret(what, path) => Right::Any(what.actions(), path.to_string()),
            Self::ListSecrets(folder) => Right::Any(&[Action::SecretList], folder.clone()),
            Self::WrongMethod(right) => right.clone(),
            Self::Forbidden => Right::Nobody,
            Self::LookupSelf
            | Self::RenewSelf
            | Self::RevokeSelf
            | Self::Capabilities
            | Self::Mount(_)
            | Self::Unsupported
            | Self::NoRoute(_) => Right::Known,
        }
    }
}

/// The method of a request, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Put,
    Delete,
    List,
    Other,
}

impl Verb {
    fn of(method: &Method, query: &str) -> Self {
        let is_list = || query_value(query, "list").is_some_and(|value| matches!(value, "true" | "1"));
        match method.as_str() {
            "GET" if is_list() => Self::List,
            "GET" | "HEAD" => Self::Get,
            "PUT" | "POST" => Self::Put,
            "DELETE" => Self::Delete,
            "LIST" => Self::List,
            _ => Self::Other,
        }
    }
}

/// The first value with this name in a query.
pub(super) fn query_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(other, _)| *other == name).map(|(_, value)| value)
}

/// The name that a list begins behind, and how many names are wanted at most.
pub(super) fn page(query: &str) -> (Cow<'_, str>, usize) {
    let after = query_value(query, "after").unwrap_or_default();
    let limit = query_value(query, "limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
    (percent_decode_str(after).decode_utf8_lossy(), limit.unwrap_or(usize::MAX))
}

impl Target {
    /// Parses the decoded path of a request.
    pub(super) fn parse(mounts: &Mounts, method: &Method, path: &str, query: &str) -> Self {
        let verb = Verb::of(method, query);
        let Some(path) = path.strip_prefix("/v1/") else {
            return Self { namespace: None, operation: Operation::NoRoute(path.trim_start_matches('/').to_owned()) };
        };
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let begins_with_mount = |path: &str| mounts.have(path.split('/').next().unwrap_or_default());
        let is_in_namespace = !begins_with_mount(path) && begins_with_mount(rest);
        let (namespace, path) = if is_in_namespace { (Some(first.to_owned()), rest) } else { (None, path) };
        Self { namespace, operation: operation(mounts, verb, path) }
    }
}

fn operation(mounts: &Mounts, verb: Verb, path: &str) -> Operation {
    let (mount, below) = path.split_once('/').unwrap_or((path, ""));
    match mount {
        "sys" => system(verb, below),
        "auth" => login(verb, below),
        mount if mount == mounts.transit => transit(verb, below),
        mount if mounts.kv.as_deref() == Some(mount) => kv(verb, below),
        _ => Operation::NoRoute(path.to_owned()),
    }
}

fn system(verb: Verb, path: &str) -> Operation {
    let is = |wanted, operation| if verb == wanted { operation } else { Operation::WrongMethod(Right::Known) };
    if let Some(mount) = path.strip_prefix("internal/ui/mounts/") {
        return is(Verb::Get, Operation::Mount(mount.to_owned()));
    }
    match path {
        "health" => is(Verb::Get, Operation::Health),
        "seal-status" => is(Verb::Get, Operation::SealStatus),
        "leader" => is(Verb::Get, Operation::Leader),
        "init" if verb == Verb::Get => Operation::Initialized,
        "capabilities-self" => is(Verb::Put, Operation::Capabilities),
        _ => Operation::Forbidden,
    }
}

fn login(verb: Verb, path: &str) -> Operation {
    let is = |wanted: &[Verb], operation| {
        if wanted.contains(&verb) { operation } else { Operation::WrongMethod(Right::Known) }
    };
    match path {
        "approle/login" => is(&[Verb::Put], Operation::Login),
        "token/lookup-self" => is(&[Verb::Get, Verb::Put], Operation::LookupSelf),
        "token/renew-self" => is(&[Verb::Put], Operation::RenewSelf),
        "token/revoke-self" => is(&[Verb::Put], Operation::RevokeSelf),
        _ => Operation::Forbidden,
    }
}

fn transit(verb: Verb, path: &str) -> Operation {
    if verb == Verb::List && !matches!(path, "keys" | "keys/") {
        return Operation::Unsupported;
    }
    if matches!(path, "keys" | "keys/") {
        let right = Right::Rule(Action::KeyList);
        return if verb == Verb::List { Operation::ListKeys } else { Operation::WrongMethod(right) };
    }
    let found = keyed(path).and_then(|(name, uses)| Some((TransitName::parse(name).ok()?, uses)));
    let Some((name, uses)) = found else { return Operation::Unsupported };
    match uses.iter().find(|(wanted, _)| *wanted == verb) {
        Some((_, what)) => Operation::Key(*what, name),
        None => Operation::WrongMethod(Right::Any(uses[0].1.actions(), name.to_string())),
    }
}

fn kv(verb: Verb, path: &str) -> Operation {
    let (command, rest) = path.split_once('/').unwrap_or((path, ""));
    let folder = rest.strip_suffix('/').unwrap_or(rest);
    if command == "metadata" && (verb == Verb::List || folder.is_empty()) {
        let is_folder = folder.is_empty() || SecretPath::parse(folder).is_some();
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        return match verb {
            Verb::List if is_folder => Operation::ListSecrets(folder),
            Verb::List => Operation::Unsupported,
            _ => Operation::WrongMethod(Right::Any(&[Action::SecretList], folder)),
        };
    }
    let uses: &[_] = match command {
        "data" => &[(Verb::Get, SecretUse::Read), (Verb::Put, SecretUse::Write), (Verb::Delete, SecretUse::Delete)],
        "metadata" => &[(Verb::Get, SecretUse::Metadata), (Verb::Delete, SecretUse::Remove)],
        "delete" => &[(Verb::Put, SecretUse::DeleteVersions)],
        "undelete" => &[(Verb::Put, SecretUse::Undelete)],
        "destroy" => &[(Verb::Put, SecretUse::Destroy)],
        _ => return Operation::Unsupported,
    };
    let Some(path) = SecretPath::parse(rest) else { return Operation::Unsupported };
    match uses.iter().find(|(wanted, _)| *wanted == verb) {
        Some((_, what)) => Operation::Secret(*what, path),
        None => Operation::WrongMethod(Right::Any(uses[0].1.actions(), path.to_string())),
    }
}

/// What can be done under a path that names a key, by verb; at least one thing.
type Uses = &'static [(Verb, Use)];

/// The name of the key in a path, and what can be done under it.
fn keyed(path: &str) -> Option<(&str, Uses)> {
    let (command, rest) = path.split_once('/')?;
    Some(match command {
        "keys" => {
            let (name, what) = rest.split_once('/').unwrap_or((rest, ""));
            (name, of_key(what)?)
        }
        "encrypt" => (rest, &[(Verb::Put, Use::Encrypt)]),
        "decrypt" => (rest, &[(Verb::Put, Use::Decrypt)]),
        "rewrap" => (rest, &[(Verb::Put, Use::Rewrap)]),
        "datakey" => {
            let (kind, name) = rest.split_once('/')?;
            (name, data_key(kind))
        }
        "hmac" | "verify" => {
            let (name, hash) = rest.split_once('/').map_or((rest, None), |(name, hash)| (name, Some(hash)));
            (name, hashed(command == "hmac", hash))
        }
        _ => return None,
    })
}

fn of_key(what: &str) -> Option<Uses> {
    Some(match what {
        "" => &[(Verb::Get, Use::Read), (Verb::Put, Use::Create), (Verb::Delete, Use::Delete)],
        "config" => &[(Verb::Put, Use::Configure)],
        "rotate" => &[(Verb::Put, Use::Rotate)],
        "trim" => &[(Verb::Put, Use::Trim)],
        _ => return None,
    })
}

fn data_key(kind: &str) -> Uses {
    match kind {
        "plaintext" => &[(Verb::Put, Use::DataKey(DataKey::Plaintext))],
        "wrapped" => &[(Verb::Put, Use::DataKey(DataKey::Wrapped))],
        _ => &[(Verb::Put, Use::DataKey(DataKey::Invalid))],
    }
}

fn hashed(is_hmac: bool, hash: Option<&str>) -> Uses {
    match (is_hmac, hash) {
        (true, None) => &[(Verb::Put, Use::Hmac(Hash::Unnamed))],
        (true, Some("sha2-256")) => &[(Verb::Put, Use::Hmac(Hash::Sha256))],
        (true, Some(_)) => &[(Verb::Put, Use::Hmac(Hash::Unsupported))],
        (false, None) => &[(Verb::Put, Use::Verify(Hash::Unnamed))],
        (false, Some("sha2-256")) => &[(Verb::Put, Use::Verify(Hash::Sha256))],
        (false, Some(_)) => &[(Verb::Put, Use::Verify(Hash::Unsupported))],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(method: &str, url: &str) -> Target {
        let mounts = Mounts { transit: "transit".into(), kv: Some("secret".into()) };
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        Target::parse(&mounts, &Method::from_bytes(method.as_bytes()).expect("a method"), path, query)
    }

    fn secret(what: SecretUse) -> Operation {
        Operation::Secret(what, SecretPath::parse("a/b").expect("a path"))
    }

    fn key(what: Use) -> Operation {
        Operation::Key(what, TransitName::parse("k.1").expect("a name"))
    }

    #[test]
    fn methods_and_paths_lead_to_operations() {
        for (method, path, operation) in [
            ("PUT", "/v1/transit/encrypt/k.1", key(Use::Encrypt)),
            ("POST", "/v1/transit/decrypt/k.1", key(Use::Decrypt)),
            ("GET", "/v1/transit/keys/k.1?", key(Use::Read)),
            ("DELETE", "/v1/transit/keys/k.1", key(Use::Delete)),
            ("POST", "/v1/transit/keys/k.1/config", key(Use::Configure)),
            ("POST", "/v1/transit/datakey/plaintext/k.1", key(Use::DataKey(DataKey::Plaintext))),
            ("POST", "/v1/transit/datakey/both/k.1", key(Use::DataKey(DataKey::Invalid))),
            ("POST", "/v1/transit/hmac/k.1/sha2-256", key(Use::Hmac(Hash::Sha256))),
            ("POST", "/v1/transit/verify/k.1/md5", key(Use::Verify(Hash::Unsupported))),
            ("LIST", "/v1/transit/keys", Operation::ListKeys),
            ("LIST", "/v1/transit/keys/", Operation::ListKeys),
            ("GET", "/v1/transit/keys?after=a&list=true", Operation::ListKeys),
            ("GET", "/v1/transit/keys", Operation::WrongMethod(Right::Rule(Action::KeyList))),
            ("GET", "/v1/transit/encrypt/k", Operation::WrongMethod(Right::Any(&[Action::KeyEncrypt], "k".into()))),
            ("POST", "/v1/transit/sign/k", Operation::Unsupported),
            ("POST", "/v1/transit/encrypt/-k", Operation::Unsupported),
            ("POST", "/v1/transit/encrypt/a/b", Operation::Unsupported),
            ("GET", "/v1/transit", Operation::Unsupported),
            ("GET", "/v1/secret/data/a/b?version=1", secret(SecretUse::Read)),
            ("POST", "/v1/secret/data/a/b", secret(SecretUse::Write)),
            ("DELETE", "/v1/secret/data/a/b", secret(SecretUse::Delete)),
            ("POST", "/v1/secret/undelete/a/b", secret(SecretUse::Undelete)),
            ("PUT", "/v1/secret/destroy/a/b", secret(SecretUse::Destroy)),
            ("GET", "/v1/secret/metadata/a/b", secret(SecretUse::Metadata)),
            ("DELETE", "/v1/secret/metadata/a/b", secret(SecretUse::Remove)),
            ("LIST", "/v1/secret/metadata", Operation::ListSecrets(String::new())),
            ("LIST", "/v1/secret/metadata/a/b", Operation::ListSecrets("a/b/".into())),
            ("GET", "/v1/secret/metadata/a/b/?list=true", Operation::ListSecrets("a/b/".into())),
            ("LIST", "/v1/secret/data/a", Operation::WrongMethod(Right::Any(&[Action::SecretRead], "a".into()))),
            ("GET", "/v1/secret/data", Operation::Unsupported),
            ("GET", "/v1/secret/data/a/../b", Operation::Unsupported),
            ("POST", "/v1/secret/config", Operation::Unsupported),
            ("GET", "/v1/nope/x", Operation::NoRoute("nope/x".into())),
            ("GET", "/ui", Operation::NoRoute("ui".into())),
            ("GET", "/v1/sys/mounts", Operation::Forbidden),
            ("GET", "/v1/sys/internal/ui/mounts/secret/a", Operation::Mount("secret/a".into())),
            ("HEAD", "/v1/sys/health", Operation::Health),
            ("POST", "/v1/auth/approle/login", Operation::Login),
            ("POST", "/v1/auth/userpass/login/x", Operation::Forbidden),
        ] {
            assert_eq!(target(method, path), Target { namespace: None, operation }, "{method} {path}");
        }
    }

    #[test]
    fn the_head_of_a_path_may_be_a_namespace() {
        for (path, namespace) in [
            ("/v1/a/transit/encrypt/k", Some("a")),
            ("/v1/transit/transit/encrypt/k", None),
            ("/v1/a/b/transit/encrypt/k", None),
            ("/v1/a/sys/health", Some("a")),
            ("/v1/a", None),
            ("/v1/", None),
        ] {
            assert_eq!(target("POST", path).namespace.as_deref(), namespace, "{path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_leads_somewhere_and_takes_a_right(
            method in "[A-Z]{1,7}",
            path in "(/v1)?(/(transit|secret|sys|auth|keys|data|metadata|encrypt|[a-z.%]{0,9}|\\PC{0,9})){0,6}/?",
            query in "\\PC{0,40}",
        ) {
            let target = target(&method, &format!("{path}?{query}"));
            // Who has no right at all gets nowhere but to what shows no secret.
            let open = [Operation::Health, Operation::SealStatus, Operation::Leader, Operation::Initialized, Operation::Login];
            prop_assert_eq!(target.operation.right() == Right::Open, open.contains(&target.operation));
            let _ = page(&query);
        }
    }
}
