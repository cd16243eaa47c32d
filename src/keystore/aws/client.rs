//! The clients of Secrets Manager: credentials, endpoint, time limits and retries.

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{Builder, Credentials, Region};
use secrecy::ExposeSecret as _;

use super::config::{self, Config, Endpoint};
use super::http::{self, ATTEMPT};
use crate::keystore::Error;
use crate::setting::ServerTls;

/// The most attempts for one page of a listing, so that a failed page does not make the whole listing start again.
const ATTEMPTS: u32 = 4;

/// A client for each kind of call.
#[derive(Debug)]
pub(super) struct Clients {
    /// Sends every call once. Retries are decided in `keystore::retry`, for all key stores.
    pub(super) calls: Client,
    pub(super) listing: Client,
    /// Sends no credentials.
    pub(super) unsigned: Client,
}

impl Clients {
    /// Reads the environment and the shared files of AWS. Credentials are looked for when they are needed.
    pub(super) async fn new(Config { secretsmanager: config, tls }: &Config) -> Result<Self, Error> {
        let http = http::client(tls, "keystore.aws.tls.ca")?;
        let shared = load(&config.region, &config.endpoint, config.credentials.as_ref()).await?;
        let build = |shared: &SdkConfig, attempts| {
            let builder = Builder::from(shared).http_client(http.clone());
            let builder = builder.retry_config(RetryConfig::standard().with_max_attempts(attempts));
            match &config.endpoint {
                Endpoint::Url(url) => builder.endpoint_url(url.as_str()),
                Endpoint::Region | Endpoint::Fips => builder,
            }
        };
        let mut anonymous = shared.to_builder();
        anonymous.set_credentials_provider(None);
        Ok(Self {
            calls: Client::from_conf(build(&shared, 1).build()),
            listing: Client::from_conf(build(&shared, ATTEMPTS).build()),
            unsigned: Client::from_conf(build(&anonymous.build(), 1).allow_no_auth().build()),
        })
    }
}

/// What the clients of all services of AWS have in common. Reads the environment and the shared files; credentials are
/// looked for when they are needed.
pub(in crate::keystore) async fn load(
    region: &str,
    endpoint: &Endpoint,
    credentials: Option<&config::Credentials>,
) -> Result<SdkConfig, Error> {
    let timeouts = TimeoutConfig::builder().connect_timeout(ATTEMPT).operation_attempt_timeout(ATTEMPT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        // The services that give credentials have the certificates of AWS, whatever those of the key store are.
        .http_client(http::client(&ServerTls::default(), "SSL_CERT_FILE")?)
        .identity_cache(IdentityCache::lazy().build())
        .timeout_config(timeouts);
    if *endpoint == Endpoint::Fips {
        loader = loader.use_fips(true);
    }
    if let Some(given) = credentials {
        let token = given.token.as_ref().map(|token| token.expose_secret().to_owned());
        let secret = given.secret_key.expose_secret();
        loader = loader.credentials_provider(Credentials::new(&given.access_key, secret, token, None, "config file"));
    }
    Ok(loader.load().await)
}
