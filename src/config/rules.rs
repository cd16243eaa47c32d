//! Rules that span several sections of the config file.

use std::collections::HashMap;

use super::Config;
use super::path::Path;
use super::read::{Problem, suggestion};
use crate::api;
use crate::api::operations::SKIP_AUTH;
use crate::auth::Identity;
use crate::keystore;

/// What breaks the rules that no section can check by itself.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut broken = Vec::new();
    if matches!(config.keystore.store, keystore::Config::Enclave(_)) && config.keystore.encrypt.is_some() {
        let message = "an enclave's keys are encrypted by the key manager; remove this section";
        broken.push(Problem::at_key(Path::of("keystore.encrypt"), message));
    }
    check_api(config, &mut broken);
    check_identities(config, &mut broken);
    check_keys(config, &mut broken);
    broken
}

fn check_api(config: &Config, broken: &mut Vec<Problem>) {
    let routes = api::routes();
    let known: Vec<&str> = routes.iter().map(|route| route.describe().1).collect();
    for (name, api) in &config.api {
        let path = || Path::of("api").key(name);
        if !known.contains(&name.as_str()) {
            let advice = match suggestion(name, &known) {
                Some(known) => format!("did you mean '{known}'?"),
                None => format!("the paths are: {}", known.join(", ")),
            };
            broken.push(Problem::at_key(path(), format!("the API has no such path; {advice}")));
        } else if api.skip_auth && !SKIP_AUTH.contains(&name.as_str()) {
            let message = format!("is possible for these paths only: {}; remove it", SKIP_AUTH.join(", "));
            broken.push(Problem::at_key(path().key("skip_auth"), message));
        }
    }
}

/// An identity has only one role: the admin, a TLS proxy, or a member of one policy.
fn check_identities(config: &Config, broken: &mut Vec<Problem>) {
    let proxies = &config.tls.proxy.identities;
    if proxies.contains(&config.admin) {
        let message = "the admin's identity stands in it; give the proxy a certificate of its own";
        broken.push(Problem::at(Path::of("tls.proxy.identities"), message));
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
            let path = Path::of("policy").key(name.as_str()).key("identities").index(index);
            broken.push(Problem::at(path, message));
        }
    }
}

fn check_keys(config: &Config, broken: &mut Vec<Problem>) {
    let mut first = HashMap::new();
    for (index, name) in config.keys.iter().enumerate() {
        match first.get(name) {
            Some(first) => {
                let message = format!("is the name of keys[{first}], too; remove one");
                broken.push(Problem::at(Path::of("keys").index(index).key("name"), message));
            }
            None => {
                first.insert(name, index);
            }
        }
    }
}
