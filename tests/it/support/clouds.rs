//! The stub of the secret stores of five vendors, `tests/peers/clouds`: there is no server of theirs to be had.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::curl::{Answer, curl};
use super::eventually;
use super::peer::{Peer, built};

/// The stub, in memory. Stopped when dropped.
pub struct Clouds {
    peer: Peer,
    facts: HashMap<String, String>,
}

impl Clouds {
    /// A stub for one test alone.
    pub fn start() -> Self {
        let mut directory = PathBuf::new();
        let peer = Peer::start(&built("clouds"), |own, address| {
            own.clone_into(&mut directory);
            ["-dir", own.to_str().expect("UTF-8"), "-http", &address.to_string()].map(str::to_owned).into()
        });
        eventually("the stub says where it is", || directory.join("env").exists());
        let facts = std::fs::read_to_string(directory.join("env")).expect("readable");
        let facts = facts.lines().filter_map(|line| line.split_once('='));
        Self { peer, facts: facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// One of the facts that it tells of itself, such as `AZURE_CLIENT_ID`.
    pub fn fact(&self, name: &str) -> &str {
        self.facts.get(name).unwrap_or_else(|| panic!("the stub tells no {name}"))
    }

    /// Where it answers in the clear.
    pub fn plain(&self) -> String {
        format!("http://{}", self.peer.address())
    }

    /// Where it answers over TLS, with a certificate of [`Clouds::ca`].
    pub fn secure(&self) -> &str {
        self.fact("CLOUDS")
    }

    pub fn ca(&self) -> &str {
        self.fact("CA")
    }

    /// The directory of its files.
    pub fn file(&self, name: &str) -> String {
        let directory = Path::new(self.ca()).parent().expect("a directory");
        directory.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// The next so many requests of this method with this part in their paths get this in place of an answer. The stub's
    /// `control.go` says what it may be. Where `part` ends with `$` it is the end of the path.
    pub fn fault(&self, method: &str, part: &str, times: usize, what: &Value) {
        let mut fault = json!({ "method": method, "path": part, "times": times });
        fault.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
        self.control("POST", "fault", &fault);
    }

    /// Takes a right from everybody.
    pub fn deny(&self, what: &str) {
        self.control("POST", "deny", &json!({ "who": "*", "what": what }));
    }

    /// Changes one of its settings.
    pub fn set(&self, name: &str, value: &str) {
        self.control("POST", "set", &json!({ "name": name, "value": value }));
    }

    /// Puts its clock forward.
    pub fn advance(&self, seconds: u64) {
        self.control("POST", "clock", &json!({ "offset": seconds }));
    }

    /// Takes back all faults, denials and settings; what is stored stays.
    pub fn reset(&self) {
        self.control("DELETE", "all", &Value::Null);
    }

    /// What a service has stored, by name.
    pub fn stored(&self, service: &str) -> serde_json::Map<String, Value> {
        let mut all = self.control("GET", "state", &Value::Null).json();
        all[service].as_object_mut().map(std::mem::take).expect("an object")
    }

    /// How many requests came of this method, with this part in their paths.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let requests = self.control("GET", "requests", &Value::Null).json();
        let is_one = |request: &&Value| {
            request["method"] == method && request["uri"].as_str().is_some_and(|uri| uri.contains(part))
        };
        requests.as_array().map_or(0, |requests| requests.iter().filter(is_one).count())
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        self.control("DELETE", "requests", &Value::Null);
    }

    fn control(&self, method: &str, path: &str, body: &Value) -> Answer {
        let (url, body) = (format!("{}/_clouds/{path}", self.plain()), body.to_string());
        let args = ["-X", method, &url, "-d", &body];
        let answer = curl(if method == "POST" { &args } else { &args[..3] }).expect("the stub answers");
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer
    }

    /// A request to one of its services as a Google account that may do everything.
    pub fn as_google(&self, method: &str, path: &str, body: &Value) -> Answer {
        let url = format!("{}/computeMetadata/v1/instance/service-accounts/default/token", self.plain());
        let token = curl(&["-H", "Metadata-Flavor: Google", &url]).expect("the stub answers").json();
        self.with_token(&token, method, path, body)
    }

    /// The same as an identity of Azure's.
    pub fn as_azure(&self, method: &str, path: &str, body: &Value) -> Answer {
        let port = self.secure().rsplit_once(':').expect("a port").1;
        let query = format!("api-version=2018-02-01&resource=https%3A%2F%2F0.0.1%3A{port}");
        let url = format!("{}/metadata/identity/oauth2/token?{query}", self.plain());
        let token = curl(&["-H", "Metadata: true", &url]).expect("the stub answers").json();
        self.with_token(&token, method, &format!("{path}?api-version=7.4"), body)
    }

    fn with_token(&self, token: &Value, method: &str, path: &str, body: &Value) -> Answer {
        let (url, body) = (format!("{}{path}", self.plain()), body.to_string());
        let header = format!("Authorization: Bearer {}", token["access_token"].as_str().expect("a token"));
        let json = "Content-Type: application/json";
        let args = ["-X", method, &url, "-H", &header, "-H", json, "-d", &body];
        curl(if body == "null" { &args[..5] } else { &args }).expect("the stub answers")
    }
}
