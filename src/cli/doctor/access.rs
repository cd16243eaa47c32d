//! `admin`, `policy`, `keys`: who may do what, and rules that probably do not do what their author meant.

use super::{Report, count};
use crate::api::operations;
use crate::auth::policy::{self, Rule};
use crate::cli::published;
use crate::config::Config;
use crate::name::KeyName;
use crate::text::counted_as;

/// The operations that clients need on a key that a config creates.
const USES: [&str; 3] = [operations::KEY_GENERATE.path, operations::KEY_ENCRYPT.path, operations::KEY_DECRYPT.path];

/// What to do about an administrator whose private key is published.
pub(super) const PUBLISHED: &str = "until then no server starts from this file";

/// Checks the admin. A value that is not a hash is not shown, because it may be a secret.
pub(super) fn admin(config: &Config, report: &mut Report) {
    const ID: &str = "admin";
    let admin = &config.admin;
    let has_members = config.policy.values().any(has_members);
    if let Some(why) = published::refusal(admin.as_str()) {
        return report.failed(ID, format!("{}: {why}", config.admin_place()), PUBLISHED);
    }
    match admin.is_hash() {
        true => report.ok(ID, format!("may do everything: {admin}")),
        false if !has_members => report.warning(
            ID,
            "there is no admin, and no policy has a member: nobody may do anything",
            "give a policy identities, or write the admin's: the 64 hex digits that 'claviger identity of' prints",
        ),
        // It was reported when the file was read.
        false if !report.is_clean(ID) => {}
        false if admin.as_str() == "disabled" => report.ok(ID, "disabled: only policies say who may do what"),
        false => report.warning(
            ID,
            "no client can have the admin's identity, so nobody is admin",
            "write the 64 hex digits that 'claviger identity of' prints, or 'disabled'",
        ),
    }
}

/// Checks every policy.
pub(super) fn policies(config: &Config, report: &mut Report) {
    const ID: &str = "policy";
    for (name, policy) in &config.policy {
        for (message, fix) in odd_members(policy).into_iter().chain(odd_rules(policy)) {
            report.warning(ID, format!("policy.{name}{message}"), fix);
        }
    }
    if report.is_clean(ID) {
        report.ok(ID, counted_as(config.policy.len(), "policy", "policies"));
    }
}

/// Checks the keys that the config creates.
pub(super) fn keys(config: &Config, report: &mut Report) {
    const ID: &str = "keys";
    let unused = |name: &&KeyName| !config.admin.is_hash() && !config.policy.values().any(|p| may_use(p, name));
    let unused: Vec<_> = config.keys.iter().filter(unused).collect();
    for name in &unused {
        let message = format!("the key '{name}' is created, and nobody may use it");
        report.warning(ID, message, format!("let a policy with members allow {}{name} and the like", USES[0]));
    }
    if unused.is_empty() {
        report.ok(ID, format!("{} to create where missing", count(config.keys.len(), "key")));
    }
}

fn has_members(policy: &policy::Config) -> bool {
    policy.identities.iter().any(crate::auth::Identity::is_hash)
}

fn may_use(policy: &policy::Config, key: &KeyName) -> bool {
    let allowed = |rules: &[String], path: &str| {
        let path = Rule::parse(path.to_owned());
        rules.iter().any(|rule| Rule::parse(rule.clone()).covers(&path))
    };
    let paths = USES.map(|path| format!("{path}{key}"));
    has_members(policy) && paths.iter().any(|path| allowed(&policy.allow, path) && !allowed(&policy.deny, path))
}

/// A message, and what to do.
type Odd = (String, &'static str);

fn odd_members(policy: &policy::Config) -> Option<Odd> {
    let has_none = policy.identities.is_empty();
    has_none.then(|| (" applies to nobody: it has no identities".into(), "add identities, or remove the policy"))
}

fn odd_rules(policy: &policy::Config) -> Vec<Odd> {
    let rules = |patterns: &[String]| patterns.iter().cloned().map(Rule::parse).collect::<Vec<_>>();
    let (allow, deny) = (rules(&policy.allow), rules(&policy.deny));
    if allow.is_empty() {
        vec![(" allows nothing".into(), "add an allow rule, or remove the policy")]
    } else if allow.iter().all(|rule| deny.iter().any(|deny| deny.covers(rule))) {
        vec![(" allows nothing: its deny rules cover everything that it allows".into(), "narrow the deny rules")]
    } else {
        wide(&allow).collect()
    }
}

/// Rules that allow the whole API.
fn wide(allow: &[Rule]) -> impl Iterator<Item = Odd> {
    let all = Rule::parse("/v1/*".into());
    allow.iter().enumerate().filter(move |(_, rule)| rule.covers(&all)).map(|(index, _)| {
        let message = format!(".allow[{index}] allows everything, deleting keys included, except what deny rules name");
        (message, "allow the paths that are needed")
    })
}
