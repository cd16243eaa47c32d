//! Rights: what suffices, and what is said when one is missing.

use serde_json::json;

use claviger::keystore::Access;

use super::{NO_CACHE, OK, Place, REFUSED};
use super::{connect, expect, serve, session};
use crate::support::block_on;
use crate::support::openbao::OpenBao;

/// A place whose role has this policy; `@` stands for the engine.
fn place(bao: &OpenBao, version: u8, policy: &str) -> Place {
    let place = Place::new(bao, version);
    let (role, policy) = bao.role(None, &policy.replace('@', &place.engine), json!({}));
    Place { role, policy, ..place }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_missing_right_is_named_with_its_path_and_the_policy_that_gives_it() {
    let bao = OpenBao::shared();
    let data = r#"path "@/data/team/keys/*" { capabilities = ["create", "read"] }"#;
    let metadata = r#"path "@/metadata/team/keys/*" { capabilities = ["delete", "list"] }"#;
    let cases = [
        (
            data.replace("\"create\", ", ""),
            metadata.into(),
            "PUT",
            "/v1/key/create/new",
            "failed to create key",
            "create",
        ),
        (data.replace(", \"read\"", ""), metadata.into(), "GET", "/v1/key/describe/new", "failed to read key", "read"),
        (
            data.into(),
            metadata.replace("\"delete\", ", ""),
            "DELETE",
            "/v1/key/delete/new",
            "failed to delete key",
            "delete",
        ),
        (data.into(), metadata.replace(", \"list\"", ""), "GET", "/v1/key/list/*", "failed to list keys", "list"),
    ];
    for (data, metadata, method, target, message, right) in cases {
        let place = place(&bao, 2, &format!("{data}\n{metadata}"));
        let server = serve(&place.by_role(&bao.endpoint()), NO_CACHE);
        block_on(async { expect(&session(&server).await, method, target, (502, message)).await });
        let part = if ["create", "read"].contains(&right) { "data" } else { "metadata" };
        let path = format!("{}/{part}/team/keys/", place.engine);
        super::super::wait_for_log(&server, &[&format!("the right '{right}' is missing"), &path]);
        let policy = format!(
            "path \\\"{}/data/team/keys/*\\\" {{ capabilities = [\\\"create\\\", \\\"read\\\"] }}",
            place.engine
        );
        super::super::wait_for_log(&server, &[&policy]);
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn rights_are_checked_beforehand() {
    let bao = OpenBao::shared();
    let read = r#"path "@/data/team/keys/*" { capabilities = ["read"] }
path "@/metadata/team/keys/*" { capabilities = ["list"] }"#;
    let place = place(&bao, 2, read);
    block_on(async {
        let store = connect(&place.by_role(&bao.endpoint())).await.expect("connects");
        store.check(Access::Read).await.expect("reading is allowed");
        let error = format!("{:?}", store.check(Access::Create).await.expect_err("creating is not"));
        let missing = format!("missing rights: 'create' on '{}/data/team/keys/any-key'", place.engine);
        assert!(error.contains(&missing), "{error}");
        let error = format!("{:?}", store.check(Access::Replace).await.expect_err("replacing is not"));
        assert!(error.contains("'delete' on"), "{error}");
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_token_without_the_default_policy_suffices() {
    let bao = OpenBao::shared();
    for version in [1, 2] {
        let place = Place::new(&bao, version);
        let role = format!("auth/approle/role/{}", place.policy);
        bao.ask("POST", &role, json!({ "token_policies": place.policy, "token_no_default_policy": true }));
        let server = serve(&place.by_role(&bao.endpoint()), NO_CACHE);
        block_on(async {
            let session = session(&server).await;
            expect(&session, "PUT", "/v1/key/create/new", OK).await;
            expect(&session, "PUT", "/v1/key/create/new", (400, "key already exists")).await;
            expect(&session, "GET", "/v1/key/describe/new", OK).await;
            expect(&session, "GET", "/v1/key/list/*", OK).await;
            expect(&session, "DELETE", "/v1/key/delete/new", OK).await;
            expect(&session, "GET", "/v1/key/describe/new", (404, "key does not exist")).await;
        });
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn version_1_warns_of_the_right_to_overwrite() {
    let bao = OpenBao::shared();
    let warning = "K/V version 1 has no compare-and-set";
    let careful = Place::new(&bao, 1);
    let server = serve(&careful.by_role(&bao.endpoint()), NO_CACHE);
    assert!(!server.stderr().contains(warning), "{}", server.stderr());
    let careless = place(&bao, 1, r#"path "@/team/keys/*" { capabilities = ["create", "read", "update", "list"] }"#);
    let server = serve(&careless.by_role(&bao.endpoint()), NO_CACHE);
    super::super::wait_for_log(&server, &[warning]);
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_token_without_any_right_does_not_make_us_log_in_again_and_again() {
    let bao = OpenBao::shared();
    let gate = crate::support::gate::Gate::new(bao.address());
    let place = Place::new(&bao, 2);
    let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
    // The rights are taken away, the token stays.
    bao.ask("PUT", &format!("sys/policies/acl/{}", place.policy), json!({ "policy": "path \"elsewhere\" {}" }));
    block_on(async {
        let session = session(&server).await;
        for _ in 0..20 {
            expect(&session, "GET", "/v1/key/describe/new", REFUSED).await;
        }
    });
    assert_eq!(gate.count("/login"), 1);
}
