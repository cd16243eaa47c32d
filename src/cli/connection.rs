//! Options of client commands: the servers to ask, and the identity to use.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use secrecy::{ExposeSecret as _, SecretString};

use super::environment::{self, API_KEY, CERT_FILE, KEY_FILE, SERVER};
use super::input;
use crate::auth::api_key::ApiKey;
use crate::client::{Client, Endpoint, Tls, Trust};
use crate::clock;
use crate::crypto::pem;

/// The default address of a server.
const LOCAL: &str = "127.0.0.1:7373";

/// The options of every command that asks a server.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Connection {
    /// The servers to try, separated by commas; the first that answers is used [default: 127.0.0.1:7373] [env:
    /// MINIO_KES_SERVER]
    #[arg(short, long, value_name = "HOST:PORT", help_heading = "Connection")]
    server: Option<String>,
    /// Read the API key from a file; '-' is standard input [env, the key itself: MINIO_KES_API_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    api_key_file: Option<PathBuf>,
    /// Do not verify the server's certificate
    #[arg(short = 'k', long, help_heading = "Connection")]
    insecure: bool,
    /// Accepted for compatibility; has no effect
    #[arg(short, long, hide = true)]
    enclave: Option<String>,
}

impl Connection {
    /// Makes a client from options and environment.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        self.client_with(None)
    }

    /// Like `client`, with an API key that takes precedence over all others.
    pub(super) fn client_with(&self, api_key: Option<&SecretString>) -> anyhow::Result<Client> {
        Ok(Client::new(self.endpoints()?, self.known_tls(api_key)?))
    }

    /// A client of its own for each server that is named.
    pub(super) fn clients(&self) -> anyhow::Result<Vec<Client>> {
        let (endpoints, tls) = (self.endpoints()?, self.known_tls(None)?);
        Ok(endpoints.into_iter().map(|endpoint| Client::new(vec![endpoint], tls.clone())).collect())
    }

    /// Like `client`, and without an identity where none is given.
    pub(super) fn client_or_nobody(&self) -> anyhow::Result<Client> {
        let tls = self.tls(None)?.map_or_else(|| Tls::anonymous(&self.trust()), Ok)?;
        Ok(Client::new(self.endpoints()?, tls))
    }

    fn known_tls(&self, api_key: Option<&SecretString>) -> anyhow::Result<Tls> {
        let missing = || anyhow::anyhow!("no API key: set {}, or {} and {}", API_KEY[0], KEY_FILE[0], CERT_FILE[0]);
        self.tls(api_key)?.ok_or_else(missing)
    }

    fn trust(&self) -> Trust {
        match self.insecure {
            true => Trust::Anybody,
            false => Trust::System { also: environment::ssl_cert_file() },
        }
    }

    /// The identity to use, and whom to trust; none where no identity is given.
    fn tls(&self, api_key: Option<&SecretString>) -> anyhow::Result<Option<Tls>> {
        let trust = self.trust();
        let api_key = match (api_key, &self.api_key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(file)) => Some(input::read_line(file)?),
            (None, None) => api_key_of_environment()?,
        };
        match (api_key, environment::path(&KEY_FILE), environment::path(&CERT_FILE)) {
            (Some(key), None, None) => {
                let key = ApiKey::parse(key.expose_secret())?;
                Ok(Some(Tls::with_api_key(&key, &trust, clock::now())?))
            }
            (None, Some(key), Some(certificate)) => {
                let (key, chain) = (input::private_key(&key)?, certificates(&certificate)?);
                Ok(Some(Tls::with_certificate(chain, &key, &trust)?))
            }
            (Some(_), Some(_), _) => bail!("an API key and a private key file exclude each other: unset one of them"),
            (Some(_), None, Some(_)) => {
                bail!("an API key and a certificate file exclude each other: unset one of them")
            }
            (None, Some(_), None) => {
                bail!("there is a private key file, but no certificate file: set {}", CERT_FILE[0])
            }
            (None, None, Some(_)) => bail!("there is a certificate file, but no private key file: set {}", KEY_FILE[0]),
            (None, None, None) => Ok(None),
        }
    }

    fn endpoints(&self) -> anyhow::Result<Vec<Endpoint>> {
        if let Some(server) = &self.server {
            return Ok(Endpoint::parse_list(server)?);
        }
        let Some((name, value)) = environment::first(&SERVER) else {
            return Ok(Endpoint::parse_list(LOCAL)?);
        };
        ensure!(!value.is_empty(), "{name} is set, but empty: set it to 'host:port', or unset it");
        let value = value.into_string().ok().with_context(|| format!("{name} is no text"))?;
        Endpoint::parse_list(&value).context(name)
    }
}

/// The API key of the first variable that is set, unless that is empty.
fn api_key_of_environment() -> anyhow::Result<Option<SecretString>> {
    let Some((name, value)) = environment::first(&API_KEY) else { return Ok(None) };
    let value = value.into_string().ok().with_context(|| format!("{name} is no text"))?;
    Ok(Some(SecretString::from(value)).filter(|key| !key.expose_secret().is_empty()))
}

fn certificates(path: &std::path::Path) -> anyhow::Result<Vec<rustls::pki_types::CertificateDer<'static>>> {
    let file = input::read(path)?;
    pem::certificates(&file).with_context(|| format!("failed to load the certificate '{}'", path.display()))
}
