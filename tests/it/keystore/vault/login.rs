//! The ways to log in, each with what operators change while a server runs.

use serde_json::{Value, json};

use super::{NO_CACHE, OK, Place, REFUSED};
use super::{config, expect, recovers, recovers_from, serve, session};
use crate::support::gate::{Gate, Rule};
use crate::support::openbao::{OpenBao, unique};
use crate::support::{TestServer, block_on, certs};

const MISSING: (u16, &str) = (404, "key does not exist");

/// Mounts an auth method in a place of its own.
fn auth(bao: &OpenBao, kind: &str, namespace: Option<&str>) -> String {
    let path = unique(kind);
    bao.ask_in(namespace, "POST", &format!("sys/auth/{path}"), json!({ "type": kind }));
    path
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn by_name_and_password() {
    let bao = OpenBao::shared();
    let (place, engine) = (Place::new(&bao, 2), auth(&bao, "userpass", None));
    let user = format!("auth/{engine}/users/kes.server");
    bao.ask("POST", &user, json!({ "password": "hunter 2", "token_policies": place.policy }));
    let mut section = place.section(&bao.endpoint());
    section["userpass"] = json!({ "engine": engine, "username": "kes.server", "password": "hunter 2" });
    let server = serve(&section, NO_CACHE);
    block_on(async { expect(&session(&server).await, "GET", "/v1/key/describe/new", MISSING).await });
    section["userpass"]["password"] = json!("hunter 3");
    let directory = tempfile::tempdir().expect("a directory");
    let said = TestServer::refuses(directory.path(), &config(&section, NO_CACHE));
    assert!(said.contains("login refused (HTTP 400)") && !said.contains("hunter"), "{said}");
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn by_a_given_token() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let token = || {
        let made = bao.ask("POST", "auth/token/create", json!({ "policies": [place.policy], "ttl": "600s" }));
        made["auth"]["client_token"].as_str().expect("a token").to_owned()
    };
    let first = token();
    let mut section = place.section(&bao.endpoint());
    section["token"] = json!({ "value": first });
    let server = serve(&section, NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        expect(&session, "GET", "/v1/key/describe/new", MISSING).await;
        bao.ask("POST", "auth/token/revoke", json!({ "token": first }));
        expect(&session, "GET", "/v1/key/describe/new", REFUSED).await;
    });
    super::super::wait_for_log(&server, &["the server rejected the token"]);

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    let first = token();
    std::fs::write(&file, format!("{first}\n")).expect("written");
    section["token"] = json!({ "file": file });
    let server = serve(&section, NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        expect(&session, "PUT", "/v1/key/create/new", OK).await;
        // Whoever looks after the file puts the next one there.
        std::fs::write(&file, token()).expect("written");
        bao.ask("POST", "auth/token/revoke", json!({ "token": first }));
        recovers(&session, "/v1/key/describe/new").await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn by_a_service_account_whose_token_is_read_again_at_every_login() {
    let bao = OpenBao::shared();
    // All of Kubernetes that is asked: whose token it is.
    let kubernetes = Gate::new(bao.address());
    let review = |name: &str| {
        let user = json!({ "username": format!("system:serviceaccount:minio:{name}"), "uid": "11-22" });
        let status = json!({ "authenticated": true, "user": user });
        let kind = json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status });
        kubernetes.open();
        kubernetes.rule("/apis/authentication.k8s.io/v1/tokenreviews", Rule::Answer(201, kind.to_string()));
    };
    let (place, engine) = (Place::new(&bao, 2), auth(&bao, "kubernetes", None));
    let ca = std::fs::read_to_string(certs("ca.crt")).expect("a certificate");
    let host = json!({
        "kubernetes_host": kubernetes.endpoint(), "kubernetes_ca_cert": ca, "disable_local_ca_jwt": true,
    });
    bao.ask("POST", &format!("auth/{engine}/config"), host);
    let role = json!({
        "bound_service_account_names": "kes", "bound_service_account_namespaces": "minio",
        "token_policies": place.policy, "token_ttl": "2s", "token_max_ttl": "2s",
    });
    bao.ask("POST", &format!("auth/{engine}/role/kes"), role);

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("jwt");
    std::fs::write(&file, jwt("kes")).expect("written");
    review("kes");
    let mut section = place.section(&bao.endpoint());
    section["kubernetes"] = json!({ "engine": engine, "role": "kes", "jwt": file });
    let server = serve(&section, NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        expect(&session, "PUT", "/v1/key/create/new", OK).await;
        // The cluster makes a new one in time; a server that remembers the old one is out.
        std::fs::write(&file, jwt("other")).expect("written");
        super::super::wait_for_log(&server, &["login to the key store failed", "login refused"]);
        std::fs::write(&file, jwt("kes")).expect("written");
        recovers_from(&session, "/v1/key/describe/new", &[502]).await;
    });
    section["kubernetes"]["jwt"] = json!(jwt("kes"));
    let server = serve(&section, NO_CACHE);
    block_on(async { expect(&session(&server).await, "GET", "/v1/key/describe/new", OK).await });
}

/// The token of a service account; nobody looks at its signature.
fn jwt(name: &str) -> String {
    use base64::Engine as _;
    let encode = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let account = json!({ "namespace": "minio", "serviceaccount": { "name": name, "uid": "11-22" } });
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "iat": 1_700_000_000, "exp": 4_000_000_000_u64,
        "kubernetes.io": account, "sub": format!("system:serviceaccount:minio:{name}"),
    });
    format!("{}.{}.c2ln", encode(json!({ "alg": "RS256", "kid": "x" })), encode(claims))
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn in_a_namespace_of_its_own() {
    let bao = OpenBao::shared();
    let namespace = unique("ns");
    bao.ask("POST", &format!("sys/namespaces/{namespace}"), json!({}));
    // The role is in the root, the keys are in the namespace.
    let engine = bao.kv(Some(&namespace), 2);
    let policy = super::policy(&format!("{namespace}/{engine}"), "team/keys", 2, super::Rights::Server);
    let more = format!("path \"{namespace}/sys/internal/ui/mounts/*\" {{ capabilities = [\"read\"] }}");
    let (role, policy) = bao.role(None, &format!("{policy}\n{more}"), json!({}));
    let place = Place { namespace: Some(namespace), engine, version: 2, prefix: "team/keys", role, policy };
    let mut section = place.by_role(&bao.endpoint());
    let directory = tempfile::tempdir().expect("a directory");
    let said = TestServer::refuses(directory.path(), &config(&section, NO_CACHE));
    assert!(said.contains("login refused"), "there is no such role in the namespace: {said}");
    section["approle"]["namespace"] = json!("/");
    let server = serve(&section, NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        expect(&session, "PUT", "/v1/key/create/new", OK).await;
        expect(&session, "GET", "/v1/key/describe/new", OK).await;
        expect(&session, "GET", "/v1/ready", OK).await;
    });
}
