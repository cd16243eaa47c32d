//! `/v1/key/list/…`: every key that was there all the time, once, however many there are.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{assert_error, assert_json, client, client_over};
use crate::support::client::{Request, Session};
use crate::support::server::{copy_fixture, fixture_config};
use crate::support::{Protocol, TestServer, block_on};

const MANY: usize = 100_000;

/// Enough for several pages.
const SOME: usize = 30_000;

/// The 1 MiB at which clients stop to read.
const CLIENTS_READ: usize = 1 << 20;

/// Names that are prefixes of others, and long ones in between.
fn name(n: usize) -> String {
    match n % 4 {
        0 => format!("my-{:0>60}", n),
        1 => format!("my-{:0>60}-longer", n - 1),
        2 => format!("key{n}"),
        _ => format!("key{}0", n - 1),
    }
}

/// A server with many keys. What is in them does not matter to a listing.
fn server_with(keys: usize) -> TestServer {
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy_fixture(directory.path());
    for n in 0..keys {
        std::fs::write(directory.path().join("keys").join(name(n)), "x").expect("written");
    }
    TestServer::start_in(directory, &fixture_config(|config| config))
}

/// The keys of the fixture and ours, as a listing of `prefix` must show them.
fn expected(server: &TestServer, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(server.keys()).expect("readable");
    let names = entries.map(|entry| entry.expect("readable").file_name().into_string().expect("text"));
    let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix) && !name.starts_with('.')).collect();
    names.sort();
    names
}

struct Page {
    names: Vec<String>,
    continue_at: Option<String>,
}

async fn page(session: &mut Session, pattern: &str) -> Page {
    let request = Request::new("GET", &format!("/v1/key/list/{pattern}"));
    let answer = session.send(request).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body.len() < CLIENTS_READ, "clients read 1 MiB");
    let json = answer.json();
    let names = json["names"].as_array().expect("names").iter();
    let names: Vec<_> = names.map(|name| name.as_str().expect("a name").to_owned()).collect();
    assert!(names.is_sorted(), "names come sorted");
    Page { names, continue_at: json.get("continue_at").map(|token| token.as_str().expect("text").to_owned()) }
}

/// Lists all pages; `between` runs after each.
async fn list(session: &mut Session, pattern: &str, mut between: impl FnMut(usize)) -> (Vec<String>, usize) {
    let (mut all, mut pages) = (Vec::new(), 0);
    let mut next = Some(pattern.to_owned());
    while let Some(pattern) = next {
        let page = page(session, &pattern).await;
        all.extend(page.names);
        pages += 1;
        between(pages);
        next = page.continue_at;
    }
    (all, pages)
}

#[test]
#[ignore = "takes half a minute: tests/run"]
fn a_hundred_thousand_keys_are_listed_once_each() {
    let server = server_with(MANY);
    let patterns = ["", "*", "my", "my-*", "key1", "key1*"];
    for (protocol, patterns) in [(Protocol::H1, &patterns[..1]), (Protocol::H2, &patterns[..])] {
        block_on(async {
            let mut session = client_over(&server, "admin", protocol).session().await.expect("a connection");
            for pattern in patterns {
                let (names, pages) = list(&mut session, pattern, |_| {}).await;
                let wanted = expected(&server, pattern.trim_end_matches('*'));
                assert!(wanted.len() > 5_000, "{pattern}");
                assert_eq!(names.len(), wanted.len(), "{pattern}");
                assert!(names == wanted, "{pattern}: names are missing or twice");
                // As few pages as the limit of clients allows: most look at the first one only.
                let bytes: usize = wanted.iter().map(|name| name.len() + 3).sum();
                assert_eq!(pages, bytes.div_ceil(950_000).max(1), "{pattern}");
            }
        });
    }
}

#[test]
fn keys_that_come_and_go_disturb_no_listing() {
    let server = server_with(SOME);
    let stays = expected(&server, "");
    let keys = server.keys();
    block_on(async {
        let mut session = client(&server, "admin").session().await.expect("a connection");
        for pattern in ["", "my-"] {
            // Around the place where the listing is, and far from it.
            let change = |page: usize| {
                for n in 0..200 {
                    for name in
                        [format!("0-new-{page}-{n}"), format!("my-5-new-{page}-{n}"), format!("z-new-{page}-{n}")]
                    {
                        std::fs::write(keys.join(name), "x").expect("written");
                    }
                    let old = format!("my-5-new-{}-{n}", page.wrapping_sub(1));
                    let _ = std::fs::remove_file(keys.join(old));
                }
            };
            let (names, _) = list(&mut session, pattern, change).await;
            let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
            for name in &names {
                *seen.entry(name).or_default() += 1;
            }
            for name in stays.iter().filter(|name| name.starts_with(pattern)) {
                assert_eq!(seen.get(name.as_str()), Some(&1), "{name}");
            }
            assert!(seen.values().all(|count| *count == 1), "a name is listed twice");
        }
    });
}

/// A token is worth as much to a server that has never seen the listing.
#[test]
fn another_server_goes_on_with_a_listing() {
    let first = server_with(SOME);
    let wanted = expected(&first, "my");
    let keys = first.keys().canonicalize().expect("a directory");
    let second = TestServer::with_config(&at(&keys));
    let third = TestServer::with_config(&at(&keys));
    block_on(async {
        let mut sessions = Vec::new();
        for server in [&first, &second, &third] {
            sessions.push(client(server, "admin").session().await.expect("a connection"));
        }
        let (mut names, mut next, mut turn) = (Vec::new(), Some("my".to_owned()), 0);
        while let Some(pattern) = next {
            let page = page(&mut sessions[turn % 3], &pattern).await;
            names.extend(page.names);
            next = page.continue_at;
            turn += 1;
        }
        assert!(turn > 1, "several pages");
        assert!(names == wanted, "names are missing or twice");
    });
}

fn at(keys: &Path) -> String {
    fixture_config(|config| config.replace("path: keys", &format!("path: {}", keys.display())))
}

/// The token names the prefix, so a policy for a prefix covers its later pages and no others.
#[test]
fn a_policy_covers_the_later_pages_of_what_it_allows() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy_fixture(directory.path());
    for n in 0..20_000 {
        std::fs::write(directory.path().join("keys").join(format!("my-app-{n:0>70}")), "x").expect("written");
    }
    let config = fixture_config(|config| {
        config.replace("    - /v1/key/create/my-app*\n", "    - /v1/key/create/my-app*\n    - /v1/key/list/my-app*\n")
    });
    let server = TestServer::start_in(directory, &config);
    block_on(async {
        let app = client(&server, "app");
        let mut session = app.session().await.expect("a connection");
        let first = page(&mut session, "my-app").await;
        let token = first.continue_at.expect("a second page");
        let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        assert!(token.starts_with("my-app.") && token.chars().all(unreserved), "{token}");
        let second = page(&mut session, &token).await;
        assert_eq!(first.names.len() + second.names.len(), expected(&server, "my-app").len());
        assert!(second.continue_at.is_none());
        let (_, last) = token.split_once('.').expect("a dot");
        for foreign in [format!("my.{last}"), format!(".{last}"), format!("my-ap.{last}")] {
            assert_error(&app.get(&format!("/v1/key/list/{foreign}")).await, 403, super::DENIED);
        }
        for broken in ["my-app.", "my-app.%", "my-app.AAAA", "my-app..", "my-app.!"] {
            let answer = client(&server, "admin").get(&format!("/v1/key/list/{}", broken.replace('%', "%25"))).await;
            let message = format!("listing pattern '{broken}' is empty, too long or is invalid");
            assert_error(&answer, 400, &message);
        }
    });
}

#[test]
fn patterns_are_prefixes() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    block_on(async {
        let my_key = json!({ "names": ["my-key", "my-key2"] });
        for pattern in ["my-key", "my-key*", "my-key%2A", "my-k"] {
            assert_json(&admin.get(&format!("/v1/key/list/{pattern}")).await, &my_key);
        }
        assert_json(&admin.get("/v1/key/list/my-key2*").await, &json!({ "names": ["my-key2"] }));
        let with_dash = json!({ "names": ["my-app-internal-x", "my-app-one"] });
        for pattern in ["my-app-", "my-app-*"] {
            assert_json(&admin.get(&format!("/v1/key/list/{pattern}")).await, &with_dash);
        }
        assert_json(&admin.get("/v1/key/list/-").await, &json!({ "names": [] }));
        for pattern in ["_", "**", "a*b", "a b", "a/b", &"k".repeat(81)] {
            let answer = admin.get(&format!("/v1/key/list/{}", pattern.replace(' ', "%20"))).await;
            let message = format!("listing pattern '{pattern}' is empty, too long or is invalid");
            assert_error(&answer, 400, &message);
        }
    });
}

/// A first page asks the store: what was created a moment ago by somebody else is there.
#[test]
fn a_first_page_is_never_old() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    block_on(async {
        for n in 0..5 {
            let before = admin.get("/v1/key/list/fresh").await.json()["names"].as_array().map(Vec::len);
            assert_eq!(before, Some(n));
            std::fs::write(server.keys().join(format!("fresh{n}")), "x").expect("written");
        }
    });
}

/// The archived server sends two answers, and breaks the connection by it.
#[test]
fn a_failed_listing_is_answered_once() {
    let server = TestServer::fixture();
    std::fs::remove_dir_all(server.keys()).expect("removed");
    std::fs::write(server.keys(), "no directory").expect("written");
    for protocol in Protocol::ALL {
        block_on(async {
            let mut session = client_over(&server, "admin", protocol).session().await.expect("a connection");
            for _ in 0..3 {
                let answer = session.send(Request::new("GET", "/v1/key/list/")).await.expect("an answer");
                assert_error(&answer, 502, "failed to list keys");
                let answer = session.send(Request::new("GET", "/version")).await.expect("an answer");
                assert_eq!(answer.status, 200, "{protocol:?}");
            }
        });
    }
}
