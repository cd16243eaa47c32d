//! The AWS KMS key: calls to it, and what its answers mean.

use std::error::Error as StdError;
use std::fmt;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Builder;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob as Bytes;
use zeroize::Zeroizing;

use super::Config;
use crate::crypto::{SecretKey, base64};
use crate::keystore::aws::client;
use crate::keystore::aws::config::Endpoint;
use crate::keystore::aws::error;
use crate::keystore::aws::http;
use crate::keystore::seal::{Provider, Wrapped, not_authentic};
use crate::keystore::{Access, Charged, Error};
use crate::name::KeyName;

/// The encryption context that a data key is bound to. KMS logs it with every call.
const CONTEXT: &str = "claviger-key";

/// A key of AWS KMS.
#[derive(Debug)]
pub(in crate::keystore::seal) struct KmsKey {
    client: Client,
    region: String,
    /// Its id, ARN or alias.
    key: String,
}

impl KmsKey {
    /// Prepares the client. Sends nothing yet.
    pub(in crate::keystore::seal) async fn connect(config: &Config) -> Result<Self, Error> {
        let Config { endpoint, region, key, credentials, tls } = config;
        if let Some(warning) = endpoint.warning() {
            tracing::warn!("{warning}");
        }
        let shared = client::load(region, endpoint, credentials.as_ref()).await?;
        let http = http::client(tls, "the 'tls.ca' beside its 'region'")?;
        let mut builder = Builder::from(&shared).http_client(http).retry_config(RetryConfig::standard());
        if let Endpoint::Url(url) = endpoint {
            builder = builder.endpoint_url(url.as_str());
        }
        Ok(Self { client: Client::from_conf(builder.build()), region: region.clone(), key: key.clone() })
    }

    async fn encrypt(&self, name: &str, data_key: &SecretKey) -> Result<Wrapped, Error> {
        let encrypt = self.client.encrypt().key_id(&self.key).encryption_context(CONTEXT, name);
        let answer = encrypt.plaintext(Bytes::new(data_key.expose())).send().await;
        let answer = answer.map_err(|error| self.failed("Encrypt", error))?;
        match (answer.key_id, answer.ciphertext_blob) {
            (Some(key), Some(blob)) => Ok(Wrapped { key, data_key: base64::encode(blob.as_ref()).to_string() }),
            _ => Err(Error::Failed("Encrypt: the answer names no key, or has no ciphertext".into())),
        }
    }

    async fn decrypt(&self, name: &str, wrapped: &Wrapped) -> Result<SecretKey, Error> {
        let blob = base64::decode(wrapped.data_key.as_bytes()).ok_or_else(not_authentic)?;
        let decrypt = self.client.decrypt().key_id(&self.key).encryption_context(CONTEXT, name);
        let answer = decrypt.ciphertext_blob(Bytes::new(blob.to_vec())).send().await;
        let answer = answer.map_err(|error| self.failed("Decrypt", error))?;
        let data_key = answer.plaintext.map(|plaintext| Zeroizing::new(plaintext.into_inner()));
        data_key.and_then(|data_key| SecretKey::from_slice(&data_key)).ok_or_else(not_authentic)
    }

    /// What a failed call means.
    fn failed<E>(&self, action: &str, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let answer = error::answer(&error);
        let code = answer.code.as_str();
        let passes = match code {
            "" => !error::lacks_credentials(&error) && (answer.status == 0 || answer.status >= 500),
            code => error::is_throttling(code) || error::is_passing(code) || answer.status >= 500,
        };
        let advice = if error::is_denied(code) {
            format!("; the credentials need this statement in their IAM policy: {}", self.statement())
        } else if error::is_about_credentials(code) || error::lacks_credentials(&error) {
            "; the credentials are not good (any more), or this machine's clock is wrong".into()
        } else if code == "InvalidCiphertextException" {
            "; it was sealed for another name, or has been changed".into()
        } else {
            String::new()
        };
        let said = if code.is_empty() {
            crate::telemetry::log::causes(&error)
        } else {
            format!("{}: {}", error::printable(code), error::printable(&answer.message))
        };
        let message = format!("KMS {action} with the key '{}': {said}{advice}", self.key);
        if passes { Error::Unreachable(message.into()) } else { Error::Failed(message.into()) }
    }

    fn statement(&self) -> String {
        let resource = match self.key.starts_with("arn:") {
            true => self.key.clone(),
            false => format!("arn:aws:kms:{}:*:key/*", self.region),
        };
        let actions = ["kms:Encrypt", "kms:Decrypt"];
        serde_json::json!({ "Effect": "Allow", "Action": actions, "Resource": resource }).to_string()
    }
}

impl fmt::Display for KmsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aws-kms key {} in {}", self.key, self.region)
    }
}

#[async_trait]
impl Provider for KmsKey {
    fn kind(&self) -> &'static str {
        "aws-kms"
    }

    /// Only the configured key, even if the credentials allow others. Otherwise somebody who can write to the key store
    /// could plant a value sealed by a key of their own. An alias is sent to KMS as it is; KMS resolves it.
    fn may_open(&self, key: &str) -> bool {
        self.key.contains("alias/")
            || key == self.key
            || key.strip_suffix(&self.key).is_some_and(|rest| rest.ends_with(":key/"))
    }

    fn charges(&self) -> Option<Charged> {
        Some(Charged { by: "AWS KMS", create: 1, get: 1, replace: 2, page: None, keeps: false })
    }

    async fn wrap(&self, name: &KeyName, data_key: &SecretKey) -> Result<Wrapped, Error> {
        self.encrypt(name.as_str(), data_key).await
    }

    async fn unwrap(&self, name: &KeyName, wrapped: &Wrapped) -> Result<SecretKey, Error> {
        self.decrypt(name.as_str(), wrapped).await
    }

    /// Wraps and unwraps a test key if keys will be written. KMS has no call that shows rights, and every call costs
    /// money, so the right to unwrap alone is not checked before the first read.
    async fn check(&self, access: Access) -> Result<(), Error> {
        if access == Access::Read {
            return Ok(());
        }
        let data_key = SecretKey::random().map_err(|error| Error::Failed(error.into()))?;
        let wrapped = self.encrypt("claviger", &data_key).await?;
        self.decrypt("claviger", &wrapped).await.map(drop)
    }
}
