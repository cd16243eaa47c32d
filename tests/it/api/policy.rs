//! `/v1/policy/…`.

use serde_json::json;

use super::{assert_error, assert_json, client};
use crate::support::certificates::identity_of;
use crate::support::{Identity, TestServer, block_on};

#[test]
fn a_policy_is_described_and_read_as_the_config_has_it() {
    let server = TestServer::fixture();
    let ops = client(&server, "ops");
    block_on(async {
        let described = ops.get("/v1/policy/describe/ops").await;
        let created_at = described.json()["created_at"].clone();
        let admin = identity_of(&Identity::fixture("admin"));
        let expected = json!({ "name": "ops", "created_at": created_at, "created_by": admin });
        assert_json(&described, &expected);
        let read = ops.get("/v1/policy/read/ops").await;
        let mut expected = expected;
        expected["allow"] = json!({ "/v1/*": {} });
        expected["deny"] = json!({ "/v1/key/delete/*": {} });
        assert_json(&read, &expected);
        let empty = ops.get("/v1/policy/read/empty").await.json();
        assert!(empty.get("allow").is_none() && empty.get("deny").is_none(), "empty maps are left out");
    });
}

#[test]
fn policies_are_listed_by_prefix() {
    let server = TestServer::fixture();
    let ops = client(&server, "ops");
    block_on(async {
        let all = json!(["deny-all", "empty", "my-app", "ops", "reader"]);
        let lists = [
            ("", all.clone()),
            ("/", all.clone()),
            ("/*", all),
            ("/my-", json!(["my-app"])),
            ("/r*", json!(["reader"])),
            ("/x", json!([])),
        ];
        for (pattern, names) in lists {
            let answer = ops.get(&format!("/v1/policy/list{pattern}")).await;
            assert_json(&answer, &json!({ "names": names, "continue_at": "" }));
        }
        // What a policy says of its holder's listings, it says of each pattern.
        let reader = client(&server, "reader");
        assert_eq!(reader.get("/v1/policy/list/reader").await.status, 200);
        assert_error(&reader.get("/v1/policy/list/my-app").await, 403, super::DENIED);
    });
}

#[test]
fn unknown_and_malformed_names_are_told_apart() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    block_on(async {
        for operation in ["describe", "read"] {
            let answer = admin.get(&format!("/v1/policy/{operation}/nope")).await;
            assert_error(&answer, 404, "policy does not exist");
            let answer = admin.get(&format!("/v1/policy/{operation}/a.b")).await;
            assert_error(&answer, 400, "policy name 'a.b' is empty, too long or contains invalid characters");
        }
        let answer = admin.get("/v1/policy/list/a.b").await;
        assert_error(&answer, 400, "listing pattern 'a.b' is empty, too long or is invalid");
    });
}
