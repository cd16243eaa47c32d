//! The ways to log in, each with what operators change while a server runs.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{NO_CACHE, OK, Place, REFUSED};
use super::{config, expect, recovers, recovers_from, serve, session};
use crate::support::curl::curl_as;
use crate::support::gate::{Gate, Rule};
use crate::support::openbao::cluster::Cluster;
use crate::support::openbao::{Admin, OpenBao, unique};
use crate::support::program::Program;
use crate::support::{TestServer, block_on, certs};

const MISSING: (u16, &str) = (404, "key does not exist");

/// Mounts an auth method in a place of its own.
fn auth(bao: &Admin, kind: &str, namespace: Option<&str>) -> String {
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

/// Runs openssl in a directory.
fn openssl(directory: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(args).current_dir(directory).output().expect("openssl runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A token that the holder of `signer.key` has signed.
fn signed(directory: &Path, subject: &str) -> String {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let claims =
        json!({ "iss": "issuer", "aud": "vault", "sub": subject, "iat": 1_700_000_000, "exp": 4_000_000_000_u64 });
    let header = json!({ "alg": "RS256", "typ": "JWT" });
    let text = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    std::fs::write(directory.join("text"), &text).expect("written");
    format!("{text}.{}", encode(&openssl(directory, &["dgst", "-sha256", "-sign", "signer.key", "text"])))
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn by_a_token_that_another_system_has_signed() {
    let bao = OpenBao::shared();
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    openssl(directory, &["genrsa", "-out", "signer.key", "2048"]);
    let public = String::from_utf8(openssl(directory, &["rsa", "-in", "signer.key", "-pubout"])).expect("PEM");
    let (place, engine) = (Place::new(&bao, 2), auth(&bao, "jwt", None));
    let issuer = json!({ "jwt_validation_pubkeys": [public], "bound_issuer": "issuer", "default_role": "kes" });
    bao.ask("POST", &format!("auth/{engine}/config"), issuer);
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "bound_subject": "kes",
        "token_policies": place.policy, "token_ttl": "2s", "token_max_ttl": "2s",
    });
    bao.ask("POST", &format!("auth/{engine}/role/kes"), role);
    let file = directory.join("jwt");
    std::fs::write(&file, signed(directory, "kes")).expect("written");
    let mut section = place.section(&bao.endpoint());
    section["jwt"] = json!({ "engine": engine, "role": "kes", "jwt": file });
    let server = serve(&section, NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        expect(&session, "PUT", "/v1/key/create/new", OK).await;
        std::fs::write(&file, signed(directory, "other")).expect("written");
        super::super::wait_for_log(&server, &["login to the key store failed", "login refused"]);
        std::fs::write(&file, signed(directory, "kes")).expect("written");
        recovers_from(&session, "/v1/key/describe/new", &[502]).await;
    });
    section["jwt"] = json!({ "engine": engine, "jwt": signed(directory, "kes") });
    let server = serve(&section, NO_CACHE);
    block_on(async { expect(&session(&server).await, "GET", "/v1/key/describe/new", OK).await });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn by_a_client_certificate() {
    let cluster = Cluster::start(1);
    let bao = cluster.admin(0);
    let (place, engine) = (Place::new(&bao, 2), auth(&bao, "cert", None));
    let ca = std::fs::read_to_string(certs("ca.crt")).expect("a certificate");
    let role = json!({ "certificate": ca, "allowed_common_names": "claviger development app", "token_policies": place.policy });
    bao.ask("POST", &format!("auth/{engine}/certs/kes"), role);
    let section = |client: &str, name: &str| {
        let mut section = place.section(&bao.endpoint());
        section["cert"] = json!({ "engine": engine, "name": name });
        section["tls"] = json!({
            "ca": certs("ca.crt"), "key": certs(format!("{client}.key")), "cert": certs(format!("{client}.crt")),
        });
        section
    };
    for name in ["kes", ""] {
        let server = serve(&section("app", name), NO_CACHE);
        block_on(async { expect(&session(&server).await, "GET", "/v1/key/describe/new", MISSING).await });
    }
    let directory = tempfile::tempdir().expect("a directory");
    for (client, name) in [("admin", "kes"), ("app", "other")] {
        let said = TestServer::refuses(directory.path(), &config(&section(client, name), NO_CACHE));
        assert!(said.contains("login refused"), "{client}, {name}: {said}");
    }
    let mut without = section("app", "kes");
    without["tls"] = json!({ "ca": certs("ca.crt") });
    let said = TestServer::refuses(directory.path(), &config(&without, NO_CACHE));
    assert!(said.contains("logs in with a certificate and has none"), "{said}");
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn by_a_role_that_needs_no_secret() {
    let bao = OpenBao::shared();
    let settings = json!({ "bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8" });
    let (engine, prefix) = (bao.kv(None, 2), "team/keys");
    let policy = super::policy(&engine, prefix, 2, super::Rights::Server);
    // A role that needs no secret id refuses to make one, so it is changed afterwards.
    let (role, policy) = bao.role(None, &policy, json!({}));
    bao.ask("POST", &format!("auth/approle/role/{policy}"), settings);
    let place = Place { namespace: None, engine, version: 2, prefix, role, policy };
    let mut section = place.section(&bao.endpoint());
    section["approle"] = json!({ "id": place.role.0 });
    let server = serve(&section, NO_CACHE);
    block_on(async { expect(&session(&server).await, "GET", "/v1/key/describe/new", MISSING).await });
    // One that needs one says so.
    section["approle"] = json!({ "id": Place::new(&bao, 2).role.0 });
    let directory = tempfile::tempdir().expect("a directory");
    let said = TestServer::refuses(directory.path(), &config(&section, NO_CACHE));
    assert!(said.contains("login refused") && said.contains("secret_id"), "{said}");
}

/// A wrapping token with a new secret id of a role, or with whatever else is at the path.
fn wrapped(bao: &OpenBao, path: &str, body: &Value) -> String {
    let (url, body) = (format!("{}/v1/{path}", bao.endpoint()), body.to_string());
    let root = format!("X-Vault-Token: {}", bao.token);
    let args = ["-X", "POST", "-H", &root, "-H", "X-Vault-Wrap-TTL: 600s", "-d", &body, &url];
    let answer = curl_as("app", &args).expect("an answer").json();
    answer["wrap_info"]["token"].as_str().expect("a wrapping token").to_owned()
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn by_a_secret_id_that_is_unwrapped_once() {
    let bao = OpenBao::shared();
    // Logins end soon, so the secret id is needed again.
    let settings = json!({ "token_ttl": "2s", "token_max_ttl": "2s" });
    let place = Place::within(&bao, None, 2, super::Rights::Server, "", settings);
    let secret_id = format!("auth/approle/role/{}/secret-id", place.policy);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("wrapping-token");
    std::fs::write(&file, wrapped(&bao, &secret_id, &json!({})) + "\n").expect("written");
    let mut section = place.section(&bao.endpoint());
    section["approle"] = json!({ "id": place.role.0, "wrapped": file });

    std::fs::write(directory.path().join("config.yml"), config(&section, NO_CACHE)).expect("written");
    let outcome = Program::named("claviger", directory.path()).run(&["doctor", "--config", "config.yml"]);
    assert!(outcome.stdout.contains("'approle.wrapped' is not used here"), "{outcome:?}");

    let server = serve(&section, NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        expect(&session, "PUT", "/v1/key/create/new", OK).await;
        // Longer than a login lasts.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        expect(&session, "GET", "/v1/key/describe/new", OK).await;
    });
    server.reload(&config(&section, NO_CACHE));
    block_on(async { expect(&session(&server).await, "GET", "/v1/key/describe/new", OK).await });

    let said = TestServer::refuses(directory.path(), &config(&section, NO_CACHE));
    assert!(said.contains("used up") && said.contains("somebody else may have the secret id"), "{said}");
    let token = std::fs::read_to_string(&file).expect("the token");
    assert!(!said.contains(token.trim()), "{said}");

    // One that was made for something else is left alone.
    let other = wrapped(&bao, "sys/wrapping/wrap", &json!({ "secret_id": place.role.1 }));
    section["approle"]["wrapped"] = json!(other);
    let said = TestServer::refuses(directory.path(), &config(&section, NO_CACHE));
    assert!(said.contains("was made for 'sys/wrapping/wrap'"), "{said}");
    bao.ask("POST", "sys/wrapping/lookup", json!({ "token": other }));

    section["approle"]["secret"] = json!(place.role.1);
    let said = TestServer::refuses(directory.path(), &config(&section, NO_CACHE));
    assert!(said.contains("keep 'secret' or 'wrapped'"), "{said}");
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
