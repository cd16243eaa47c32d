//! The real moto, which answers like AWS.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use super::certs;
use super::curl::{Answer, curl};
use super::peer::{Peer, python, python_package};

/// The one that tests share while any of them runs.
static SHARED: Mutex<Weak<Moto>> = Mutex::new(Weak::new());

/// Where all is that has no place of its own.
pub const REGION: &str = "us-east-1";

/// AWS on this machine, in memory. Stopped when dropped.
pub struct Moto {
    peer: Peer,
    scheme: &'static str,
}

/// A user's access key and its secret.
pub struct User {
    pub name: String,
    pub access_key: String,
    pub secret_key: String,
}

impl Moto {
    /// The server that tests share, each with names of its own.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        started
    }

    /// A server for one test alone.
    pub fn start() -> Self {
        Self::launch("http", &[])
    }

    /// The same over TLS, with the development certificate.
    pub fn start_tls() -> Self {
        Self::start_tls_with(&certs("server.crt"), &certs("server.key"))
    }

    /// The same with this certificate.
    pub fn start_tls_with(certificate: &Path, key: &Path) -> Self {
        let [certificate, key] = [certificate, key].map(|file| file.display().to_string());
        Self::launch("https", &["--ssl", "--ssl-cert", &certificate, "--ssl-key", &key])
    }

    fn launch(scheme: &'static str, more: &[&str]) -> Self {
        python_package("moto", "moto");
        let more = more.iter().map(|arg| (*arg).to_owned());
        let peer = Peer::start(&python(), |_, address| {
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/start_moto.py");
            let args = [program, "--host", &host, "--port", &port].map(str::to_owned);
            args.into_iter().chain(more).collect()
        });
        Self { peer, scheme }
    }

    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.peer.address())
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.peer.address()
    }

    /// Asks Secrets Manager for something that must work, as somebody whom nobody checks.
    pub fn ask(&self, action: &str, body: &Value) -> Value {
        self.ask_service("secretsmanager", &format!("secretsmanager.{action}"), "1.1", body)
    }

    /// Asks a service whose requests are JSON of this version.
    pub fn ask_service(&self, service: &str, target: &str, version: &str, body: &Value) -> Value {
        let json = format!("Content-Type: application/x-amz-json-{version}");
        let header = format!("X-Amz-Target: {target}");
        let answer = self.send(service, &["-H", &header, "-H", &json, "-d", &body.to_string()]);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer.json()
    }

    /// Makes a key in KMS; returns its ARN.
    pub fn kms_key(&self) -> String {
        let json = "Content-Type: application/x-amz-json-1.1";
        let answer = self.send("kms", &["-H", "X-Amz-Target: TrentService.CreateKey", "-H", json, "-d", "{}"]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned()
    }

    /// Makes a secret with this value.
    pub fn put(&self, name: &str, value: &str) {
        self.ask("CreateSecret", &json!({ "Name": name, "SecretString": value }));
    }

    /// The value of a secret.
    pub fn value(&self, name: &str) -> String {
        let secret = self.ask("GetSecretValue", &json!({ "SecretId": name, "VersionStage": "AWSCURRENT" }));
        secret["SecretString"].as_str().expect("a text").to_owned()
    }

    /// The names of all secrets.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut query = json!({ "MaxResults": 100 });
        loop {
            let page = self.ask("ListSecrets", &query);
            let secrets = page["SecretList"].as_array().expect("a list");
            names.extend(secrets.iter().map(|secret| secret["Name"].as_str().expect("a name").to_owned()));
            let Some(next) = page["NextToken"].as_str() else { return names };
            query["NextToken"] = next.into();
        }
    }

    /// Makes a user who may do what this policy says.
    pub fn user(&self, name: &str, statements: &Value) -> User {
        self.iam("CreateUser", &[("UserName", name)]);
        self.allow(name, statements);
        let answer = self.iam("CreateAccessKey", &[("UserName", name)]);
        let [access_key, secret_key] = ["AccessKeyId", "SecretAccessKey"].map(|name| field(&answer, name));
        User { name: name.into(), access_key, secret_key }
    }

    /// Gives a user this policy in place of the one before.
    pub fn allow(&self, user: &str, statements: &Value) {
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        self.iam("PutUserPolicy", &[("UserName", user), ("PolicyName", "keys"), ("PolicyDocument", &policy)]);
    }

    /// Makes a role that anybody may take, who then may do what this policy says; returns its ARN.
    pub fn role(&self, name: &str, statements: &Value) -> String {
        let trust = json!([{ "Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRoleWithWebIdentity" }]);
        let document = |statements: &Value| json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let answer = self.iam("CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", &document(&trust))]);
        let policy = document(statements);
        self.iam("PutRolePolicy", &[("RoleName", name), ("PolicyName", "keys"), ("PolicyDocument", &policy)]);
        field(&answer, "Arn")
    }

    /// Credentials of a session in this role: access key, secret, and token.
    pub fn assume(&self, role: &str) -> [String; 3] {
        let form = format!("Action=AssumeRole&Version=2011-06-15&RoleSessionName=test&RoleArn={role}");
        let answer = self.send("sts", &["-d", &form]);
        assert_eq!(answer.status, 200, "{answer:?}");
        ["AccessKeyId", "SecretAccessKey", "SessionToken"].map(|name| field(&answer.body, name))
    }

    fn iam(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        let mut args = vec!["-d".to_owned(), format!("Action={action}&Version=2010-05-08")];
        for (name, value) in parameters {
            args.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        let answer = self.send("iam", &args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(answer.status, 200, "{action}: {answer:?}");
        answer.body
    }

    fn send(&self, service: &str, args: &[&str]) -> Answer {
        let authorization = format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=anybody/20260101/{REGION}/{service}/aws4_request, \
             SignedHeaders=host, Signature=0"
        );
        let url = self.endpoint();
        curl(&[&["-H", &authorization, &url], args].concat()).expect("moto answers")
    }

    /// From now on signatures and rights are checked, until it is told otherwise.
    pub fn enforce(&self, enforce: bool) {
        // It counts the calls that nobody checks.
        let calls = if enforce { "0" } else { "1000000000" };
        let url = format!("{}/moto-api/reset-auth", self.endpoint());
        let answer = curl(&["-H", "Content-Type: application/octet-stream", "-d", calls, &url]).expect("moto answers");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The text between the tags of an answer in XML.
fn field(answer: &str, name: &str) -> String {
    let (_, rest) = answer.split_once(&format!("<{name}>")).expect(name);
    rest.split_once('<').expect(name).0.to_owned()
}
