//! Rules that span several sections of the config file, and warnings about settings that are allowed but unusual.

use std::collections::HashMap;

use super::Config;
use super::path::Path;
use super::read::{Problem, suggestion};
use super::yaml::{Node, Value};
use crate::api;
use crate::api::operations::SKIP_AUTH;
use crate::auth::Identity;
use crate::keystore;

/// Checks the rules that no section can check by itself.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    if let keystore::Config::Kms(_) = config.keystore.store {
        return Err(Problem::at_key(Path::of("keystore.kms"), keystore::kms::NO_STORE));
    }
    check_api(config)?;
    check_identities(config)?;
    check_keys(config)
}

fn check_api(config: &Config) -> Result<(), Problem> {
    let routes = api::routes();
    let known: Vec<&str> = routes.iter().map(|route| route.describe().1).collect();
    for (name, api) in &config.api {
        let path = || Path::of("api").key(name);
        if !known.contains(&name.as_str()) {
            let advice = match suggestion(name, &known) {
                Some(known) => format!("did you mean '{known}'?"),
                None => format!("the paths are: {}", known.join(", ")),
            };
            return Err(Problem::at_key(path(), format!("the API has no such path; {advice}")));
        }
        if api.skip_auth && !SKIP_AUTH.contains(&name.as_str()) {
            let message = format!("is possible for these paths only: {}; remove it", SKIP_AUTH.join(", "));
            return Err(Problem::at_key(path().key("skip_auth"), message));
        }
    }
    Ok(())
}

/// An identity has only one role: the admin, a TLS proxy, or a member of one policy.
fn check_identities(config: &Config) -> Result<(), Problem> {
    let proxies = &config.tls.proxy.identities;
    if proxies.contains(&config.admin) {
        let message = "the admin's identity stands in it; give the proxy a certificate of its own";
        return Err(Problem::at(Path::of("tls.proxy.identities"), message));
    }
    let mut members: HashMap<&Identity, &str> = HashMap::new();
    for (name, policy) in &config.policy {
        for (index, identity) in policy.identities.iter().enumerate() {
            let message = if *identity == config.admin {
                "is the admin, whom no policy restricts; remove it here".into()
            } else if proxies.contains(identity) {
                "is a TLS proxy, which only speaks for others; remove it here, or from tls.proxy.identities".into()
            } else if let Some(other) = members.insert(identity, name.as_str()) {
                format!(
                    "is a member of the policy '{other}' already; an identity has one policy, and stands there once"
                )
            } else {
                continue;
            };
            return Err(Problem::at(Path::of("policy").key(name.as_str()).key("identities").index(index), message));
        }
    }
    Ok(())
}

fn check_keys(config: &Config) -> Result<(), Problem> {
    let mut first = HashMap::new();
    for (index, name) in config.keys.iter().enumerate() {
        if let Some(first) = first.insert(name, index) {
            let message = format!("is the name of keys[{first}], too; remove one");
            return Err(Problem::at(Path::of("keys").index(index).key("name"), message));
        }
    }
    Ok(())
}

/// Warns about settings that are allowed but probably not intended.
pub(super) fn odd(root: &Node) -> Vec<Problem> {
    let mut odd = Vec::new();
    let admin = root.entry("admin").and_then(|admin| admin.value.entry("identity"));
    if let Some(Value::Scalar(admin)) = admin.map(|admin| &admin.value.value) {
        odd.extend(odd_admin(&admin.text).map(|message| Problem::at(Path::of("admin.identity"), message)));
    }
    for policy in root.entry("policy").map_or(&[][..], |policies| policies.value.entries()) {
        for (list, meaning) in [("allow", "nothing is allowed by it"), ("deny", "nothing is denied by it")] {
            if policy.value.entry(list).is_some_and(|list| list.value.is_null()) {
                let path = Path::of("policy").key(&*policy.key).key(list);
                odd.push(Problem::at_key(path, format!("has no value, so {meaning}; write a list, or remove it")));
            }
        }
    }
    odd
}

fn odd_admin(text: &str) -> Option<&'static str> {
    if text.starts_with("kes:v1:") {
        return Some(
            "this is an API key, which is a secret, and not an identity: nobody is admin; \
             write what 'claviger identity of' prints for it, and make a new key",
        );
    }
    let is_identity = Identity::parse(text).is_ok_and(|identity| identity.is_hash());
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && !is_identity).then_some("no client can have this identity: it takes 64 lower-case hex digits")
}
