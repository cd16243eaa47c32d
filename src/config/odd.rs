//! Settings that are valid and probably a mistake: warnings, each with what to write instead.

use super::finding::Weight;
use super::path::Path;
use super::read::{Problem, suggestion};
use super::yaml::Node;
use crate::api::operations;
use crate::auth::Identity;
use crate::auth::policy::Rule;

/// What is odd. It never shows a value of the file.
pub(super) fn odd(root: &Node) -> Vec<Problem> {
    let mut odd = Vec::new();
    let value = |section: &str, key: &str| root.entry(section).and_then(|section| section.value.entry(key));
    if let Some(text) = value("admin", "identity").and_then(|admin| admin.value.text()) {
        odd.extend(odd_admin(text).map(|message| Problem::at(Path::of("admin.identity"), message)));
    }
    if let Some(proxies) = value("tls", "proxy").and_then(|proxy| proxy.value.entry("identities")) {
        odd_identities(&proxies.value, &Path::of("tls.proxy.identities"), &mut odd);
    }
    for policy in root.entry("policy").map_or(&[][..], |policies| policies.value.entries()) {
        odd_policy(&policy.value, &Path::of("policy").key(&*policy.key), &mut odd);
    }
    odd
}

fn odd_admin(text: &str) -> Option<&'static str> {
    if text.trim().starts_with("kes:v1:") || text.trim().starts_with("k1:") {
        return Some(
            "this is an API key, which is a secret, and not an identity: nobody is admin; \
             write what 'claviger identity of' prints for it, and make a new key",
        );
    }
    if text.trim() != text {
        return Some("there is white space before or behind it, so nobody is admin; remove it");
    }
    odd_identity(text).filter(|_| text.starts_with("h1:") || text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Why no client can have an identity.
fn odd_identity(text: &str) -> Option<&'static str> {
    let is_hash = |text: &str| Identity::parse(text).is_ok_and(|identity| identity.is_hash());
    if is_hash(text) || Identity::of_key_manager(text).is_some() {
        None
    } else if is_hash(&text.to_ascii_lowercase()) {
        Some("no client can have this identity: the letters of an identity are lower-case; write them so")
    } else if text.starts_with("h1:") {
        Some(
            "no client can have this identity: 'h1:' and 43 characters of URL-safe base64 are one, and this is not; \
             write what 'claviger identity of' prints",
        )
    } else {
        Some(
            "no client can have this identity: it takes 64 lower-case hex digits; \
             write what 'claviger identity of' prints",
        )
    }
}

fn odd_identities(list: &Node, path: &Path, odd: &mut Vec<Problem>) {
    for (index, identity) in list.items().iter().enumerate() {
        let message = identity.text().filter(|text| !text.is_empty()).and_then(odd_identity);
        odd.extend(message.map(|message| Problem::at(path.clone().index(index), message)));
    }
}

fn odd_policy(policy: &Node, path: &Path, odd: &mut Vec<Problem>) {
    let lists = [
        ("allow", "nothing is allowed by it", Weight::Plain),
        // Somebody relies on what is denied.
        ("deny", "nothing is denied by it", Weight::Danger),
    ];
    for (key, meaning, weight) in lists {
        let Some(list) = policy.entry(key) else { continue };
        let path = path.clone().key(key);
        if list.value.is_null() {
            let message = format!("has no value, so {meaning}; write a list, or remove it");
            odd.push(Problem::at_key(path.clone(), message));
        }
        for (index, pattern) in list.value.items().iter().enumerate() {
            if let Some(why) = pattern.text().and_then(matches_nothing) {
                let message = format!("matches no request, so {meaning}; {why}");
                odd.push(Problem { weight, ..Problem::at(path.clone().index(index), message) });
            }
        }
    }
    if let Some(identities) = policy.entry("identities") {
        odd_identities(&identities.value, &path.clone().key("identities"), odd);
    }
}

/// What to write instead of a pattern that no request matches. Of the pattern it shows no more than a path of the API.
fn matches_nothing(pattern: &str) -> Option<String> {
    let routes: Vec<&str> = operations::ALL.iter().map(|operation| operation.path).collect();
    let can_match = |pattern: &str| {
        let rule = Rule::parse(pattern.to_owned());
        routes.iter().any(|route| rule.can_match(route))
    };
    if can_match(pattern) {
        return None;
    }
    let begin = pattern.strip_suffix('*').unwrap_or(pattern);
    if begin.contains('*') {
        return Some("only a '*' at the end stands for more; write one rule for each path".into());
    }
    let meant = meant(begin.trim(), &routes);
    Some(match meant {
        Some(route) if route.ends_with('/') => format!("did you mean '{route}…'?"),
        Some(route) => format!("did you mean '{route}'?"),
        None => "the API has no such path: 'claviger status --api' lists what there is".into(),
    })
}

/// The route that a path was meant to lead to.
fn meant<'r>(path: &str, routes: &[&'r str]) -> Option<&'r str> {
    // `key/create/x`, `v1/key/create/x`, `/V1/key/create/x`
    let path = path.trim_start_matches('/').to_ascii_lowercase();
    let path = if path.starts_with("v1/") { format!("/{path}") } else { format!("/v1/{path}") };
    let begins = |route: &&&str| path.starts_with(route.trim_end_matches('/'));
    // The longest, since some begin as others do.
    let known = routes.iter().filter(begins).max_by_key(|route| route.len());
    // `/v1/key/craete/x`: the name behind it is not compared.
    let head: String = path.splitn(5, '/').take(4).collect::<Vec<_>>().join("/");
    let heads: Vec<&str> = routes.iter().map(|route| route.trim_end_matches('/')).collect();
    let close = || {
        let close = suggestion(&head, &heads)?;
        routes.iter().find(|route| route.trim_end_matches('/') == close)
    };
    known.or_else(close).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_matches_nothing_gets_a_suggestion() {
        for (pattern, advice) in [
            ("/v1/key/craete/my-app*", "did you mean '/v1/key/create/…'?"),
            ("/v1/key/list", "did you mean '/v1/key/list/…'?"),
            ("v1/metrics", "did you mean '/v1/metrics'?"),
            ("key/generate/*", "did you mean '/v1/key/generate/…'?"),
            ("/V1/key/Create/*", "did you mean '/v1/key/create/…'?"),
            ("/v1/statsu", "did you mean '/v1/status'?"),
            ("/v1/key/*/my-key", "only a '*' at the end"),
            ("/v1/**", "only a '*' at the end"),
            ("/v1/policy/write/*", "the API has no such path"),
            ("/v1/enclave/create/*", "the API has no such path"),
            ("", "the API has no such path"),
        ] {
            let message = matches_nothing(pattern);
            assert!(message.as_ref().is_some_and(|message| message.contains(advice)), "{pattern}: {message:?}");
        }
        for pattern in
            ["*", "/*", "/v1/*", "/v1/key/*", "/v1/key/create/my-*", "/v1/key/list/*", "/v1/status", "/version"]
        {
            assert_eq!(matches_nothing(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn an_identity_that_nobody_can_have_is_odd() {
        let hash = "0f6e9713c38c70bbb141d2ed163fe75471242eb0f8b17c2bdea007374c0c0042";
        assert_eq!(
            (odd_identity(hash), odd_admin(hash), odd_admin("disabled"), odd_admin("_")),
            (None, None, None, None)
        );
        let spelled = "h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0";
        assert_eq!((odd_identity(spelled), odd_admin(spelled)), (None, None));
        for (text, says) in [
            (hash.to_uppercase(), "lower-case"),
            (format!(" {hash}"), "white space"),
            (format!("{hash}\n"), "white space"),
            (hash[1..].to_owned(), "64 lower-case hex digits"),
            ("h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr".to_owned(), "43 characters"),
            ("kes:v1:AD9E".to_owned(), "API key"),
        ] {
            assert!(odd_admin(&text).is_some_and(|message| message.contains(says)), "{text}");
        }
    }
}
