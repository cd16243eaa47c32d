//! The key stores of vendors of whom there is no server to be had: all of them against one stub, with the same tests, and
//! each with tests of its own.

mod azure;
mod gcp;
mod others;
mod outage;
mod race;
mod server;
mod stored;
mod suite;

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use claviger::config::Config;
use claviger::keystore::KeyStore;
use claviger::name::KeyName;

use crate::support::TestServer;
use crate::support::clouds::Clouds;
use crate::support::server::{PROGRAM, dev_config};

/// A store that the stub plays.
pub struct Vendor {
    /// The section below `keystore:`, and the service in the stub's state.
    pub name: &'static str,
    /// The section, for a stub at this address.
    section: fn(&Clouds, &str) -> Value,
    /// The variables with which a server logs in.
    variables: fn(&Clouds) -> Vec<(&'static str, String)>,
    /// How the requests look that do one thing: method and a part of the path.
    pub create: (&'static str, &'static str),
    pub read: (&'static str, &'static str),
    pub list: (&'static str, &'static str),
    pub delete: (&'static str, &'static str),
    /// Calls, and answers of the oddities that are whole ones to them.
    pub bare: &'static [(&'static str, &'static str)],
    /// Who charges, and for how many requests of a migration by key.
    pub charges: Option<(&'static str, usize)>,
    /// The longest value that it takes, in bytes.
    pub longest: usize,
    /// Whether it takes the token as expired when the stub's clock is put forward.
    pub expires: bool,
}

/// All of them.
pub const VENDORS: &[Vendor] = &[gcp::VENDOR, azure::VENDOR, others::FORTANIX, others::GEMALTO, others::ENTRUST];

impl Vendor {
    /// The section of a config file that reaches the stub over TLS.
    pub fn section(&self, clouds: &Clouds) -> Value {
        (self.section)(clouds, clouds.secure())
    }

    /// The variables that a program with this section needs.
    pub fn variables(&self, clouds: &Clouds) -> Vec<(&'static str, String)> {
        (self.variables)(clouds)
    }

    /// The key store of such a section, as a server uses it but for retries.
    pub async fn connect(&self, clouds: &Clouds) -> Arc<dyn KeyStore> {
        connect(&self.section(clouds), &self.variables(clouds)).await.expect("the stub answers")
    }

    /// A server with this cache, and keys at the stub.
    pub fn serve(&self, clouds: &Clouds, cache: &str) -> TestServer {
        serve(&self.section(clouds), &self.variables(clouds), cache)
    }

    /// The next so many requests of one kind get this in place of an answer.
    pub fn fault(&self, clouds: &Clouds, kind: (&str, &str), times: usize, what: &Value) {
        clouds.fault(kind.0, kind.1, times, what);
    }
}

/// The key store that a section of a config file makes, where these are the variables.
pub async fn connect(
    section: &Value,
    variables: &[(&str, String)],
) -> Result<Arc<dyn KeyStore>, claviger::keystore::Error> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({ "keystore": section }).to_string()).expect("the file is written");
    let (config, warnings) = Config::load_keystore(&file).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    match &config.store {
        claviger::keystore::Config::Gcp(config) => config.connect_in(&find).await,
        claviger::keystore::Config::Azure(config) => config.connect_in(&find).await,
        store => store.connect().await,
    }
}

/// A server with keys in such a section.
pub fn serve(section: &Value, variables: &[(&str, String)], cache: &str) -> TestServer {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(PROGRAM);
    command.env("HOME", directory.path()).envs(variables.iter().map(|(name, value)| (name, value)));
    let config = dev_config("").replace("{ fs: { path: keys } }", &section.to_string());
    TestServer::start_under(command, directory, &format!("cache: {cache}\n{config}"))
}

pub fn name(text: &str) -> KeyName {
    KeyName::parse(text).expect("the name of a key")
}
