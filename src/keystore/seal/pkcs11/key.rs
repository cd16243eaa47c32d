//! A key on a token that wraps data keys by AES-GCM. The key itself never leaves the token.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cryptoki::error::{Error as CallError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::Config;
use super::token::{Connection, Refusal};
use crate::crypto::{NoRandom, SecretKey, base64, fill};
use crate::keystore::seal::{Provider, Wrapped, not_authentic};
use crate::keystore::{Access, Error};
use crate::name::KeyName;

/// The most calls at a time: each holds a thread and a session, and tokens have few sessions.
const AT_ONCE: usize = 8;

/// How long a call may take. A thread that waits longer stays with its call, and there are no more than [`AT_ONCE`].
const PATIENCE: Duration = Duration::from_secs(8);

const NONCE: usize = 12;
const TAG_BITS: u64 = 128;

/// A key of a token.
pub(in crate::keystore::seal) struct TokenKey {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
    warnings: Vec<String>,
}

struct Shared {
    config: Config,
    /// None: the last one has ended, and the next call makes another.
    connection: Mutex<Option<Arc<Connection>>>,
}

/// Why a call has no result.
enum Failure {
    NoRandom(NoRandom),
    Refused(Refusal),
    /// The token says that what should be opened was not sealed like this.
    NotAuthentic,
    Failed(CallError),
}

impl TokenKey {
    /// Logs in to the token, and tries its key.
    pub(in crate::keystore::seal) async fn connect(config: &Config) -> Result<Self, Error> {
        let shared = Arc::new(Shared { config: config.clone(), connection: Mutex::new(None) });
        let mut key = Self { shared, turns: Arc::new(Semaphore::new(AT_ONCE)), warnings: Vec::new() };
        key.warnings = key
            .blocking(|shared| {
                shared.probe()?;
                Ok(shared.connection()?.warnings.clone())
            })
            .await?;
        for warning in &key.warnings {
            tracing::warn!("{key}: {warning}");
        }
        Ok(key)
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let (shared, turns) = (self.shared.clone(), self.turns.clone());
        let call = async move {
            let turn = turns.acquire_owned().await.map_err(|error| Error::Failed(error.into()))?;
            let done = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work(&shared).map_err(|failure| shared.error(failure))
            });
            done.await.unwrap_or_else(|error| Err(Error::Failed(error.into())))
        };
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(done) => done,
            Err(_) => {
                let late =
                    format!("{}: no answer within {PATIENCE:?}; see whether the token works", self.shared.place());
                Err(Error::Unreachable(late.into()))
            }
        }
    }
}

impl Shared {
    fn connection(&self) -> Result<Arc<Connection>, Failure> {
        // Held while it logs in: one login at a time.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let opened = Arc::new(Connection::open(&self.config).map_err(Failure::Refused)?);
        *connection = Some(opened.clone());
        Ok(opened)
    }

    /// Makes the next call log in again, unless another call has seen to it.
    fn leave(&self, left: &Arc<Connection>) {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, left)) {
            *connection = None;
        }
    }

    /// Runs `work` on the token, and once more after another login when the token has lost the sessions.
    fn run<T>(&self, work: impl Fn(&Session, ObjectHandle) -> Result<T, CallError>) -> Result<T, Failure> {
        let connection = self.connection()?;
        match connection.run(&work) {
            Err(error) if is_lost(&error) => {
                self.leave(&connection);
                // Its sessions are closed before the next login.
                drop(connection);
                self.connection()?.run(&work).map_err(Failure::Failed)
            }
            done => done.map_err(Failure::Failed),
        }
    }

    /// The nonce, the ciphertext and the tag.
    fn wrap(&self, data_key: &SecretKey, place: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut random = [0; NONCE];
        fill(&mut random).map_err(Failure::NoRandom)?;
        self.run(|session, key| {
            let mut nonce = random;
            let mechanism = Mechanism::AesGcm(GcmParams::new(&mut nonce, place, TAG_BITS.into())?);
            let sealed = session.encrypt(&mechanism, key, data_key.expose())?;
            drop(mechanism);
            // Some tokens choose the nonce themselves, and write it over the one that they were given.
            Ok([&nonce[..], &sealed].concat())
        })
    }

    fn unwrap(&self, sealed: &[u8], place: &[u8]) -> Result<SecretKey, Failure> {
        match self.decrypt(sealed, place) {
            // Tokens do not agree on how they say that something is not authentic. One that still works means that.
            Err(Failure::Failed(error)) if is_vague(&error) && self.probe().is_ok() => Err(Failure::NotAuthentic),
            opened => opened,
        }
    }

    fn decrypt(&self, sealed: &[u8], place: &[u8]) -> Result<SecretKey, Failure> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(Failure::NotAuthentic)?;
        let opened = self.run(|session, key| {
            let mut nonce = *nonce;
            let mechanism = Mechanism::AesGcm(GcmParams::new(&mut nonce, place, TAG_BITS.into())?);
            session.decrypt(&mechanism, key, sealed).map(Zeroizing::new)
        })?;
        SecretKey::from_slice(&opened).ok_or(Failure::NotAuthentic)
    }

    /// Seals something and opens it again.
    fn probe(&self) -> Result<(), Failure> {
        const PLACE: &[u8] = b"claviger probe";
        let data_key = SecretKey::random().map_err(Failure::NoRandom)?;
        let opened = self.decrypt(&self.wrap(&data_key, PLACE)?, PLACE)?;
        opened.is_same(&data_key).then_some(()).ok_or(Failure::NotAuthentic)
    }

    /// The associated data that a data key is bound to.
    fn bound_to(&self, name: &KeyName) -> Vec<u8> {
        format!("claviger data key 1\n{}\n{name}\n", self.config.key).into_bytes()
    }

    fn place(&self) -> String {
        let Config { module, token, key, .. } = &self.config;
        format!("PKCS#11 module '{}', token {token}, key '{key}'", module.display())
    }

    fn error(&self, failure: Failure) -> Error {
        let place = self.place();
        let error = match failure {
            Failure::NotAuthentic => return not_authentic(),
            Failure::NoRandom(error) => return Error::Failed(error.into()),
            Failure::Refused(Refusal::Away(why)) => return Error::Unreachable(format!("{place}: {why}").into()),
            Failure::Refused(Refusal::Wrong(why)) => return Error::Failed(format!("{place}: {why}").into()),
            Failure::Failed(error) => error,
        };
        let message = |advice| format!("{place}: {error}; {advice}").into();
        match &error {
            CallError::Pkcs11(RvError::MechanismInvalid | RvError::MechanismParamInvalid, _) => {
                Error::Failed(message("the token must support AES-GCM (CKM_AES_GCM) with nonces of 12 bytes"))
            }
            CallError::Pkcs11(RvError::KeyFunctionNotPermitted | RvError::KeyTypeInconsistent, _) => {
                Error::Failed(message("the key must be of AES, with CKA_ENCRYPT and CKA_DECRYPT"))
            }
            _ => {
                // The next call begins anew: it finds the token again if it is back.
                *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Error::Unreachable(message("see whether the token is plugged in and works"))
            }
        }
    }
}

/// Whether the token has forgotten us, or what we asked it for.
fn is_lost(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Pkcs11(
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::UserNotLoggedIn
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::DeviceRemoved
                | RvError::DeviceError
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SlotIdInvalid
                | RvError::CryptokiNotInitialized
                | RvError::OperationActive,
            _
        )
    )
}

/// Whether the error may mean that a sealed value is not authentic.
fn is_vague(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Pkcs11(
            RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::DataInvalid
                | RvError::DataLenRange
                | RvError::GeneralError
                | RvError::FunctionFailed
                | RvError::VendorDefined(_),
            _
        )
    )
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { token, key, .. } = &self.shared.config;
        write!(f, "pkcs11 key '{key}' of the token {token}")
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl Provider for TokenKey {
    fn kind(&self) -> &'static str {
        "pkcs11"
    }

    fn may_open(&self, key: &str) -> bool {
        key == self.shared.config.key
    }

    async fn wrap(&self, name: &KeyName, data_key: &SecretKey) -> Result<Wrapped, Error> {
        let data_key = SecretKey::from_slice(data_key.expose()).expect("a key is as long as a key");
        let name = name.clone();
        let sealed = self.blocking(move |shared| shared.wrap(&data_key, &shared.bound_to(&name))).await?;
        let key = self.shared.config.key.clone();
        Ok(Wrapped { key, data_key: base64::encode(&sealed).to_string() })
    }

    async fn unwrap(&self, name: &KeyName, wrapped: &Wrapped) -> Result<SecretKey, Error> {
        let sealed = base64::decode(wrapped.data_key.as_bytes()).ok_or_else(not_authentic)?;
        let name = name.clone();
        self.blocking(move |shared| shared.unwrap(&sealed, &shared.bound_to(&name))).await
    }

    async fn status(&self) -> Result<(), Error> {
        self.blocking(|shared| shared.run(|session, _| session.get_session_info().map(drop))).await
    }

    async fn check(&self, _: Access) -> Result<(), Error> {
        self.blocking(Shared::probe).await
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
