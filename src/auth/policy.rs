//! Policies: what an identity may do.

use serde::Deserialize;

use crate::auth::Identity;
use crate::name::PolicyName;

/// One entry of the `policy:` section of the config file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path patterns of allowed requests.
    pub allow: Vec<String>,
    /// Path patterns of denied requests. They take precedence over `allow`.
    pub deny: Vec<String>,
    /// The identities that have this policy.
    pub identities: Vec<Identity>,
}

/// Rules over request paths. A path is allowed when an `allow` rule matches and no `deny` rule does.
#[derive(Debug)]
pub struct Policy {
    name: PolicyName,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

impl Policy {
    /// A policy with the given path patterns.
    pub fn new(name: PolicyName, allow: Vec<String>, deny: Vec<String>) -> Self {
        let rules = |patterns: Vec<String>| patterns.into_iter().map(Rule::parse).collect();
        Self { name, allow: rules(allow), deny: rules(deny) }
    }

    /// The policy's name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// The patterns of allowed requests, as written.
    pub fn allow(&self) -> impl Iterator<Item = &str> {
        self.allow.iter().map(Rule::as_str)
    }

    /// The patterns of refused requests, as written.
    pub fn deny(&self) -> impl Iterator<Item = &str> {
        self.deny.iter().map(Rule::as_str)
    }

    /// Whether a request for the decoded `path` is allowed.
    pub fn allows(&self, path: &str) -> bool {
        matches!(self.decide(path), Decision::Allowed(_))
    }

    /// The rule that decides about a request for the decoded `path`.
    pub fn decide(&self, path: &str) -> Decision<'_> {
        let matching = |rules: &'_ [Rule]| rules.iter().position(|rule| rule.matches(path));
        if let Some(at) = matching(&self.deny) {
            return Decision::Denied(self.deny[at].as_str());
        }
        matching(&self.allow).map_or(Decision::NoRule, |at| Decision::Allowed(self.allow[at].as_str()))
    }
}

/// Why a policy allows a request or does not: the pattern that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// An `allow` pattern, and no `deny` pattern matches.
    Allowed(&'a str),
    /// A `deny` pattern.
    Denied(&'a str),
    /// No pattern matches, so the request is not allowed.
    NoRule,
}

/// A path pattern: a prefix when it ends in `*`, else one exact path. `*` elsewhere is a literal.
#[derive(Debug)]
pub struct Rule {
    pattern: Box<str>,
    is_prefix: bool,
    /// The last byte that a path must have, and its position; none: the pattern is empty or just `*`.
    last: Option<(usize, u8)>,
}

impl Rule {
    /// Parses a pattern. Every text is valid.
    pub fn parse(pattern: String) -> Self {
        let is_prefix = pattern.ends_with('*');
        let literal = &pattern.as_bytes()[..pattern.len() - usize::from(is_prefix)];
        let last = literal.last().map(|byte| (literal.len() - 1, *byte));
        Self { is_prefix, last, pattern: pattern.into() }
    }

    /// The pattern, as written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether it matches `path`.
    pub fn matches(&self, path: &str) -> bool {
        // Compares bytes: the prefix before `*` may end within a character of `path`.
        let path = path.as_bytes();
        // Paths and patterns often have the same beginning, `/v1/key/…`, but seldom the same end. So comparing the last
        // byte first settles most cases.
        if let Some((at, byte)) = self.last
            && path.get(at) != Some(&byte)
        {
            return false;
        }
        match self.pattern.as_bytes() {
            [] => false,
            [prefix @ .., _] if self.is_prefix => path.starts_with(prefix),
            exact => path == exact,
        }
    }

    /// Whether this pattern matches every path that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        match other.prefix() {
            Some(begin) => self.prefix().is_some_and(|own| begin.starts_with(own)),
            None => other.pattern.is_empty() || self.matches(&other.pattern),
        }
    }

    /// Whether a request for `route`, a path of the API, may match. Where a route ends in `/` an argument follows.
    pub fn can_match(&self, route: &str) -> bool {
        let (pattern, route) = (self.pattern.as_bytes(), route.as_bytes());
        let takes_more = |path: &[u8]| route.ends_with(b"/") && path.len() > route.len() && path.starts_with(route);
        match self.prefix() {
            Some(begin) => route.starts_with(begin) || takes_more(begin),
            None => pattern == route || takes_more(pattern),
        }
    }

    /// The prefix of paths, for a pattern that ends in `*`.
    fn prefix(&self) -> Option<&[u8]> {
        self.pattern.as_bytes().strip_suffix(b"*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let own = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
        Policy::new(PolicyName::parse("p").expect("valid"), own(allow), own(deny))
    }

    #[test]
    fn a_final_star_is_a_prefix_and_any_other_a_literal() {
        let policy = policy(&["/v1/key/create/my-app*", "/v1/status", "/v1/key/*/x"], &[]);
        for path in ["/v1/key/create/my-app", "/v1/key/create/my-app-1", "/v1/status", "/v1/key/*/x"] {
            assert!(policy.allows(path), "{path}");
        }
        for path in ["/v1/key/create/my-ap", "/v1/status/", "/v1/key/create/x", "/v1/key/y/x", ""] {
            assert!(!policy.allows(path), "{path}");
        }
    }

    #[test]
    fn deny_wins_and_nothing_is_allowed_by_default() {
        assert!(!policy(&["/v1/*"], &["*"]).allows("/v1/status"));
        assert!(!policy(&["/v1/*"], &["/v1/status"]).allows("/v1/status"));
        assert!(!policy(&[], &[]).allows("/v1/status"));
    }

    #[test]
    fn a_decision_names_its_rule() {
        let policy = policy(&["/v1/key/*", "/v1/*"], &["/v1/key/x*"]);
        assert_eq!(policy.decide("/v1/key/xy"), Decision::Denied("/v1/key/x*"));
        assert_eq!(policy.decide("/v1/key/y"), Decision::Allowed("/v1/key/*"));
        assert_eq!(policy.decide("/version"), Decision::NoRule);
    }

    #[test]
    fn a_rule_covers_another_when_it_matches_all_its_paths() {
        let covers = |a: &str, b: &str| Rule::parse(a.into()).covers(&Rule::parse(b.into()));
        for (wide, narrow) in [("*", "/v1/*"), ("/v1/*", "/v1/key/x"), ("/v1/*", "/v1/*"), ("/a", "/a"), ("/a", "")] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (narrow, wide) in [("/v1/*", "*"), ("/v1/key/x", "/v1/key/x*"), ("/a", "/b"), ("", "/a"), ("/a/*", "/a")] {
            assert!(!covers(narrow, wide), "{narrow} {wide}");
        }
    }

    #[test]
    fn a_rule_can_match_the_paths_that_there_are() {
        let can = |rule: &str, route: &str| Rule::parse(rule.into()).can_match(route);
        for (rule, route) in [
            ("*", "/v1/status"),
            ("/v1/st*", "/v1/status"),
            ("/v1/status", "/v1/status"),
            ("/v1/key/list/", "/v1/key/list/"),
            ("/v1/key/create/a", "/v1/key/create/"),
            ("/v1/key/create/a*", "/v1/key/create/"),
        ] {
            assert!(can(rule, route), "{rule} {route}");
        }
        for (rule, route) in [("", "/v1/status"), ("v1/*", "/v1/status"), ("/v1/status/", "/v1/status")] {
            assert!(!can(rule, route), "{rule} {route}");
        }
        assert!(!can("/v1/key/*/a", "/v1/key/create/") && !can("/v1/statusx*", "/v1/status"));
    }

    #[test]
    fn an_empty_pattern_matches_nothing() {
        assert!(!policy(&[""], &[]).allows(""));
        assert!(policy(&["*"], &[""]).allows("/v1/status"));
    }
}
