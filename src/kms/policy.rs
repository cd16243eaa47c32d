//! Policies of an enclave: what the users that have them may do.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::{Action, Error};
use crate::auth::policy::Rule;
use crate::kms::wire;
use crate::name::PolicyName;

/// Rules over actions and the names that they are about. An action is allowed when an `allow` rule matches and no
/// `deny` rule does.
#[derive(Debug)]
pub struct Policy {
    pub(super) name: PolicyName,
    pub(super) allow: Rules,
    pub(super) deny: Rules,
    pub(super) created_at: OffsetDateTime,
    pub(super) created_by: String,
}

/// Patterns by action.
pub(super) type Rules = BTreeMap<Action, Vec<Rule>>;

impl Policy {
    /// Whether it allows an action on something with this name.
    pub fn allows(&self, action: Action, name: &str) -> bool {
        let matches =
            |rules: &Rules| rules.get(&action).is_some_and(|rules| rules.iter().any(|rule| rule.matches(name)));
        !matches(&self.deny) && matches(&self.allow)
    }
}

/// Reads rules as clients send them, and as they are stored.
///
/// # Errors
/// When a rule is for an action that does not exist.
pub(super) fn parse(rules: &BTreeMap<String, wire::RuleSet>) -> Result<Rules, Error> {
    let parse = |(action, set): (&String, &wire::RuleSet)| {
        let action =
            Action::parse(action).ok_or_else(|| Error::invalid("the policy names an action that there is not"))?;
        Ok((action, set.rules.keys().cloned().map(Rule::parse).collect()))
    };
    rules.iter().map(parse).collect()
}

/// The rules as clients read them.
pub(super) fn show(rules: &Rules) -> BTreeMap<String, wire::RuleSet> {
    let set = |rules: &[Rule]| wire::RuleSet {
        rules: rules.iter().map(|rule| (rule.as_str().to_owned(), wire::Rule {})).collect(),
    };
    rules.iter().map(|(action, rules)| (action.to_string(), set(rules))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rules: &[(Action, &[&str])]) -> Rules {
        let parse = |patterns: &[&str]| patterns.iter().map(|p| Rule::parse((*p).to_owned())).collect();
        rules.iter().map(|(action, patterns)| (*action, parse(patterns))).collect()
    }

    #[test]
    fn deny_wins_and_nothing_is_allowed_by_default() {
        let policy = Policy {
            name: PolicyName::parse("p").expect("a name"),
            allow: rules(&[(Action::KeyCreate, &["app-*", "exact"]), (Action::KeyDelete, &["*"])]),
            deny: rules(&[(Action::KeyCreate, &["app-x*"]), (Action::KeyList, &["*"])]),
            created_at: OffsetDateTime::UNIX_EPOCH,
            created_by: String::new(),
        };
        for (action, name) in [
            (Action::KeyCreate, "app-"),
            (Action::KeyCreate, "app-1"),
            (Action::KeyCreate, "exact"),
            (Action::KeyDelete, "app-x"),
            (Action::KeyDelete, ""),
        ] {
            assert!(policy.allows(action, name), "{action} {name}");
        }
        for (action, name) in [
            (Action::KeyCreate, "app-x1"),
            (Action::KeyCreate, "exactly"),
            (Action::KeyCreate, "app"),
            (Action::KeyStatus, "app-1"),
            (Action::KeyList, ""),
        ] {
            assert!(!policy.allows(action, name), "{action} {name}");
        }
    }
}
