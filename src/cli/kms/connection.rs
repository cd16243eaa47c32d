//! Options of client commands: the key manager to ask, and the API key to use.

use anyhow::{Context as _, ensure};
use secrecy::{ExposeSecret as _, SecretString};

use crate::auth::enclave::ApiKey;
use crate::cli::environment::{self, KMS_API_KEY, KMS_ENCLAVE, KMS_SERVER};
use crate::client::{Client, Endpoint, Tls, Trust};
use crate::clock;

/// The default address of a server.
const LOCAL: &str = "https://localhost:7373";

/// The options of every command that asks a key manager.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Connection {
    /// The API key; other users can see it in the process list, so prefer the variable [env: MINIO_KMS_API_KEY]
    #[arg(short, long, value_name = "KEY", help_heading = "Connection")]
    api_key: Option<SecretString>,
    /// Do not verify the server's certificate
    #[arg(short = 'k', long, help_heading = "Connection")]
    insecure: bool,
}

/// The same for commands within an enclave.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct InEnclave {
    /// The enclave [env: MINIO_KMS_ENCLAVE]
    #[arg(short, long, value_name = "NAME", help_heading = "Connection")]
    enclave: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Connection {
    /// Makes a client from options and environment.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let trust = match self.insecure {
            true => Trust::Anybody,
            false => Trust::System { also: environment::ssl_cert_file() },
        };
        let key = match &self.api_key {
            Some(key) => key.clone(),
            None => {
                environment::secret(KMS_API_KEY).context("no API key: set MINIO_KMS_API_KEY, or use '--api-key'")?
            }
        };
        let key = ApiKey::parse(key.expose_secret())?;
        Ok(Client::new(endpoints()?, Tls::with_enclave_key(&key, &trust, clock::now())?))
    }
}

impl InEnclave {
    /// A client, and the enclave.
    pub(super) fn client(&self) -> anyhow::Result<(Client, String)> {
        Ok((self.connection.client()?, self.enclave()?))
    }

    fn enclave(&self) -> anyhow::Result<String> {
        let enclave = self.enclave.clone().or_else(|| environment::text(KMS_ENCLAVE));
        enclave.filter(|name| !name.is_empty()).context("no enclave: set MINIO_KMS_ENCLAVE, or use '--enclave'")
    }

    /// The enclave, where one is named, and the rest.
    pub(super) fn parts(&self) -> (Option<String>, &Connection) {
        (self.enclave().ok(), &self.connection)
    }
}

/// The prefix for a listing: the text without a `*` at its end.
pub(super) fn prefix(text: &str) -> Result<String, &'static str> {
    let prefix = text.strip_suffix('*').unwrap_or(text);
    if prefix.contains('*') { Err("a '*' can only stand at the end") } else { Ok(prefix.to_owned()) }
}

/// The servers, as the environment says.
pub(super) fn servers() -> String {
    environment::text(KMS_SERVER).unwrap_or_else(|| LOCAL.to_owned())
}

fn endpoints() -> anyhow::Result<Vec<Endpoint>> {
    let servers = servers();
    ensure!(!servers.is_empty(), "{KMS_SERVER} is set, but empty: set it to 'https://host:port', or unset it");
    Endpoint::parse_list(&servers).context(KMS_SERVER)
}
