//! `/v1/identity/…`.

use serde_json::json;

use super::{NO_CERTIFICATE, assert_error, assert_json, client, client_over, stranger};
use crate::support::certificates::identity_of;
use crate::support::{Identity, Protocol, TestServer, block_on};

fn id(name: &str) -> String {
    identity_of(&Identity::fixture(name))
}

#[test]
fn everybody_with_a_policy_may_ask_who_it_is() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        block_on(async {
            for (name, policy) in [("app", "my-app"), ("ops", "ops"), ("reader", "reader"), ("deny", "deny-all")] {
                let answer = client_over(&server, name, protocol).get("/v1/identity/self/describe").await;
                let read = client(&server, "admin").get(&format!("/v1/policy/read/{policy}")).await.json();
                let created_at = read["created_at"].clone();
                let expected = json!({ "identity": id(name), "created_at": created_at, "created_by": id("admin"), "policy": read });
                assert_json(&answer, &expected);
            }
            let answer = client_over(&server, "admin", protocol).get("/v1/identity/self/describe").await;
            let created_at = answer.json()["created_at"].clone();
            assert_json(&answer, &json!({ "identity": id("admin"), "admin": true, "created_at": created_at }));
        });
    }
}

#[test]
fn who_has_no_policy_is_unknown_and_who_shows_no_certificate_is_told_so() {
    let server = TestServer::fixture();
    let nobody = block_on(client(&server, "nobody").get("/v1/identity/self/describe"));
    assert_error(&nobody, 404, "identity does not exist");
    assert_error(&block_on(stranger(&server).get("/v1/identity/self/describe")), 400, NO_CERTIFICATE);
}

#[test]
fn identities_are_described_with_their_policy() {
    let server = TestServer::fixture();
    let ops = client(&server, "ops");
    block_on(async {
        let answer = ops.get(&format!("/v1/identity/describe/{}", id("app"))).await;
        let created_at = answer.json()["created_at"].clone();
        let expected = json!({ "policy": "my-app", "created_at": created_at, "created_by": id("admin") });
        assert_json(&answer, &expected);
        let answer = ops.get(&format!("/v1/identity/describe/{}", id("admin"))).await;
        assert_json(&answer, &json!({ "admin": true, "created_at": created_at }));
        let answer = ops.get(&format!("/v1/identity/describe/{}", id("nobody"))).await;
        assert_error(&answer, 404, "identity does not exist");
        let answer = ops.get("/v1/identity/describe/a.b").await;
        assert_error(&answer, 400, "identity 'a.b' is empty, too long or contains invalid characters");
    });
}

#[test]
fn identities_are_listed_the_admin_among_them() {
    let server = TestServer::fixture();
    let ops = client(&server, "ops");
    let mut all: Vec<_> = ["admin", "app", "ops", "reader", "deny"].into_iter().map(id).collect();
    all.sort();
    block_on(async {
        for pattern in ["", "/", "/*"] {
            let answer = ops.get(&format!("/v1/identity/list{pattern}")).await;
            assert_json(&answer, &json!({ "identities": all, "continue_at": "" }));
        }
        let (first, prefix) = (&all[0], &all[0][..8]);
        for pattern in [prefix.to_owned(), format!("{prefix}*"), first.clone()] {
            let answer = ops.get(&format!("/v1/identity/list/{pattern}")).await;
            assert_json(&answer, &json!({ "identities": [first], "continue_at": "" }));
        }
        let answer = ops.get("/v1/identity/list/x").await;
        assert_json(&answer, &json!({ "identities": [], "continue_at": "" }));
    });
}
