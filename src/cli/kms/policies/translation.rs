//! The policies of a KES, said in the words of a key manager. Nobody gets a right that the KES config does not give.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::operations::{self, SKIP_AUTH};
use crate::auth::{Identity, enclave, policy};
use crate::config::Config;
use crate::kms::Action;
use crate::operation::Operation;

/// Patterns of names by action.
pub(super) type Rules = BTreeMap<Action, Vec<String>>;

/// What a KES config is in an enclave.
#[derive(Debug, Default)]
pub(super) struct Translation {
    /// By name.
    pub(super) policies: Vec<(String, Policy)>,
    /// Identities that may do everything.
    pub(super) admins: Vec<String>,
    /// Identities, and the policies that they have.
    pub(super) members: Vec<(String, String)>,
    /// What cannot be said in an enclave.
    pub(super) losses: Vec<String>,
}

/// A policy of an enclave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) allow: Rules,
    pub(super) deny: Rules,
}

/// What follows a path of the KES API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Argument {
    /// A name.
    Name,
    /// The beginning of names.
    Listing,
    /// An identity in hexadecimal.
    Identity,
    /// The beginning of identities in hexadecimal.
    Identities,
}

/// What does the same in both APIs.
const SAME: &[(Operation, Action, Argument)] = &[
    (operations::KEY_CREATE, Action::KeyCreate, Argument::Name),
    (operations::KEY_IMPORT, Action::KeyImport, Argument::Name),
    (operations::KEY_DESCRIBE, Action::KeyStatus, Argument::Name),
    (operations::KEY_DELETE, Action::KeyDelete, Argument::Name),
    (operations::KEY_LIST, Action::KeyList, Argument::Listing),
    (operations::KEY_GENERATE, Action::KeyGenerate, Argument::Name),
    (operations::KEY_ENCRYPT, Action::KeyEncrypt, Argument::Name),
    (operations::KEY_DECRYPT, Action::KeyDecrypt, Argument::Name),
    (operations::KEY_HMAC, Action::KeyMac, Argument::Name),
    (operations::POLICY_DESCRIBE, Action::PolicyStatus, Argument::Name),
    (operations::POLICY_READ, Action::PolicyGet, Argument::Name),
    (operations::POLICY_LIST, Action::PolicyList, Argument::Listing),
    (operations::IDENTITY_DESCRIBE, Action::IdentityStatus, Argument::Identity),
    (operations::IDENTITY_LIST, Action::IdentityList, Argument::Identities),
];

/// What no policy of an enclave can allow, and why.
const OTHER: &[(Operation, &str)] = &[
    (operations::STATUS, "the status is for system administrators"),
    (operations::API, "a key manager has no list of its operations"),
    (operations::LOG_ERROR, "the log is for system administrators"),
    (operations::LOG_AUDIT, "the log is for system administrators"),
];

/// What needs no policy there: it is open, or for every identity of the enclave.
const NEEDLESS: &[Operation] =
    &[operations::VERSION, operations::READY, operations::METRICS, operations::IDENTITY_SELF];

impl Translation {
    pub(super) fn of(config: &Config) -> Self {
        let mut this = Self::default();
        for (name, policy) in &config.policy {
            let mut losses = Vec::new();
            let translated = Policy::of(policy, &mut losses);
            if translated.allow.contains_key(&Action::KeyCreate) {
                losses.push("the right to create a key is there the right to rotate it, too".into());
            }
            this.losses.extend(losses.into_iter().map(|loss| format!("policy '{name}': {loss}")));
            this.policies.push((name.to_string(), translated));
            for identity in &policy.identities {
                match here(identity) {
                    Some(identity) => this.members.push((identity, name.to_string())),
                    None => this
                        .losses
                        .push(format!("policy '{name}': the identity '{identity}', which no client can have")),
                }
            }
        }
        this.admins.extend(here(&config.admin));
        if !config.tls.proxy.identities.is_empty() {
            let loss = "tls.proxy: a key manager takes no certificates from proxies; clients must reach it themselves";
            this.losses.push(loss.into());
        }
        let open = config.api.iter().filter(|(path, api)| api.skip_auth && SKIP_AUTH.contains(&path.as_str()));
        this.losses.extend(
            open.filter(|(path, _)| **path != operations::READY.path)
                .map(|(path, _)| format!("api: '{path}' without a certificate; there it needs an identity")),
        );
        this
    }
}

impl Policy {
    fn of(policy: &policy::Config, losses: &mut Vec<String>) -> Self {
        let (mut allow, mut deny, mut withheld) = (Rules::new(), Rules::new(), BTreeSet::new());
        for pattern in policy.allow.iter().filter(|pattern| !pattern.is_empty()) {
            let mut matches_any = NEEDLESS.iter().any(|operation| argument(pattern, operation.path).is_some());
            for (operation, action, kind) in SAME {
                let Some(argument) = argument(pattern, operation.path) else { continue };
                matches_any = true;
                match said(&argument, *kind) {
                    Ok(name) => add(&mut allow, *action, name),
                    Err(why) => losses.push(format!("allow '{pattern}': {action}: {why}")),
                }
            }
            for (operation, why) in OTHER {
                if argument(pattern, operation.path).is_some() {
                    matches_any = true;
                    losses.push(format!("allow '{pattern}': '{}': {why}", operation.path));
                }
            }
            if !matches_any {
                losses.push(format!("allow '{pattern}': it matches no request of the KES API"));
            }
        }
        for pattern in policy.deny.iter().filter(|pattern| !pattern.is_empty()) {
            for (operation, action, kind) in SAME {
                let Some(argument) = argument(pattern, operation.path) else { continue };
                match said(&argument, *kind) {
                    Ok(name) => add(&mut deny, *action, name),
                    // What cannot be denied is not allowed.
                    Err(why) => {
                        if allow.contains_key(action) && withheld.insert(*action) {
                            losses.push(format!(
                                "deny '{pattern}': {action}: {why}; so the policy does not allow {action}"
                            ));
                        }
                    }
                }
            }
        }
        allow.retain(|action, _| !withheld.contains(action));
        // Rules that deny what is not allowed anyway say nothing.
        deny.retain(|action, _| allow.contains_key(action));
        Self { allow, deny }
    }
}

fn add(rules: &mut Rules, action: Action, name: String) {
    let names = rules.entry(action).or_default();
    if !names.contains(&name) {
        names.push(name);
    }
}

/// What of `route` a pattern of paths matches, as a pattern of what follows the route; none: nothing.
fn argument(pattern: &str, route: &str) -> Option<String> {
    let takes_more = route.ends_with('/');
    match pattern.strip_suffix('*') {
        Some(begin) if route.starts_with(begin) => Some("*".into()),
        Some(begin) if takes_more => begin.strip_prefix(route).map(|rest| format!("{rest}*")),
        Some(_) => None,
        None => pattern.strip_prefix(route).filter(|rest| rest.is_empty() != takes_more).map(str::to_owned),
    }
}

/// The same argument in a policy of an enclave.
fn said(argument: &str, kind: Argument) -> Result<String, &'static str> {
    match kind {
        Argument::Name => Ok(argument.to_owned()),
        Argument::Listing if argument.ends_with('*') => Ok(argument.to_owned()),
        Argument::Listing => Err("a rule for one prefix allows there the listing of one name only"),
        Argument::Identity | Argument::Identities if argument == "*" => Ok(argument.to_owned()),
        Argument::Identity => {
            let identity = Identity::parse(argument).ok().as_ref().and_then(here);
            identity.ok_or("the beginning of an identity is another one there, where it is written as h1:…")
        }
        Argument::Identities => Err("the beginning of an identity is another one there, where it is written as h1:…"),
    }
}

/// The identity as a key manager writes it; none: no client can have it.
fn here(identity: &Identity) -> Option<String> {
    enclave::Identity::of(identity).map(|identity| identity.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::policy::Rule;
    use crate::name::PolicyName;

    const HASH: &str = "614916aaeed73669a19723356353b71580129b6c4be54ca554ce30820cee62ae";

    fn translated(allow: &[&str], deny: &[&str]) -> (policy::Config, Policy, Vec<String>) {
        let own = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>();
        let config = policy::Config { allow: own(allow), deny: own(deny), identities: Vec::new() };
        let mut losses = Vec::new();
        let policy = Policy::of(&config, &mut losses);
        (config, policy, losses)
    }

    fn allows(policy: &Policy, action: Action, name: &str) -> bool {
        let matches = |rules: &Rules| {
            rules.get(&action).is_some_and(|names| names.iter().any(|rule| Rule::parse(rule.clone()).matches(name)))
        };
        matches(&policy.allow) && !matches(&policy.deny)
    }

    #[test]
    fn a_translated_policy_allows_nothing_more_and_about_keys_the_same() {
        let patterns = [
            "*",
            "/v1/*",
            "/v1/key/*",
            "/v1/key/create/*",
            "/v1/key/create/my-app*",
            "/v1/key/create/my-app",
            "/v1/key/de*",
            "/v1/key/list/*",
            "/v1/key/list/my*",
            "/v1/key/list/my",
            "/v1/policy/list/*",
            "",
            "/v1",
            "/v1/identity/describe/*",
            "/v1/identity/describe/61*",
            "/v1/identity/list/61*",
            "/v1/status",
            "/v1/key/*/my-app",
            "/v1/key/create",
        ];
        let names = ["my-app", "my-app-x", "my", "x", HASH];
        for allow in patterns {
            for deny in patterns {
                let (config, policy, _) = translated(&[allow], &[deny]);
                let name = PolicyName::parse("p").expect("a name");
                let kes = crate::auth::Policy::new(name, config.allow, config.deny);
                for (operation, action, kind) in SAME {
                    for name in names {
                        let there = match kind {
                            Argument::Identity | Argument::Identities => {
                                match Identity::parse(name).ok().as_ref().and_then(here) {
                                    Some(identity) => identity,
                                    None => continue,
                                }
                            }
                            _ => name.to_owned(),
                        };
                        let before = kes.allows(&format!("{}{name}", operation.path));
                        let after = allows(&policy, *action, &there);
                        assert!(before || !after, "allow {allow}, deny {deny}: {action} {name}");
                        if *kind == Argument::Name {
                            assert_eq!(before, after, "allow {allow}, deny {deny}: {action} {name}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_said_is_named() {
        let (_, policy, losses) =
            translated(&["/v1/identity/describe/*", "/v1/status", "/v1/key/create"], &["/v1/identity/describe/61*"]);
        assert_eq!(policy, Policy::default());
        assert_eq!(losses.len(), 3, "{losses:?}");
        assert!(losses[2].ends_with("so the policy does not allow IDENTITY:STATUS"), "{losses:?}");
        let (_, policy, losses) =
            translated(&["/v1/metrics", "/version", &format!("/v1/identity/describe/{HASH}")], &[]);
        assert_eq!(policy.allow[&Action::IdentityStatus].len(), 1);
        assert!(policy.allow[&Action::IdentityStatus][0].starts_with("h1:") && losses.is_empty(), "{losses:?}");
    }
}
