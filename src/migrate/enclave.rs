//! An enclave of a key manager, as the source or the target of a migration.
//!
//! A key manager gives no key back. (Claviger's does, sealed, to system administrators.) So a key there is proven by
//! what it encrypts and decrypts.

pub mod config;
mod error;
mod export;
mod import;
mod probe;
mod rights;

use std::collections::BTreeMap;
use std::fmt;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prost::Message;

use self::error::explain;
use crate::auth::enclave::Identity;
use crate::client::kms::Commands;
use crate::client::{self, Client};
use crate::keystore::{self, Access, Error, Listing, Waits, patiently};
use crate::kms::Action;
use crate::kms::wire::{EXPORT, KeyStatus, ListKeysResponse, ListRequest, TRANSIT_KEYS, WHOLE_KEYS};
use crate::name::EnclaveName;

/// The number of keys in a request. It is large enough that the round trip does not count, and small enough for the
/// server's size limit, even with keys of many versions.
const BATCH: usize = 256;

/// An enclave, and our own identity in it.
pub struct Enclave {
    client: Client,
    name: EnclaveName,
    identity: Identity,
    /// The address that the server reports for itself.
    host: String,
    extensions: Vec<String>,
    /// The most keys in a request.
    batch: usize,
    waits: Waits,
}

impl Enclave {
    /// Connects, and asks the server what it is.
    ///
    /// # Errors
    /// When it does not answer, or is not a key manager.
    pub async fn connect(client: Client, name: EnclaveName, identity: Identity, waits: &Waits) -> Result<Self, Error> {
        let version = patiently(waits, || async { client.kms_version().await.map_err(explain) }).await?;
        let (host, extensions) = (version.host, version.extensions);
        let most = usize::try_from(version.most_changes).unwrap_or(usize::MAX);
        let batch = if most == 0 { BATCH } else { most.min(BATCH) };
        Ok(Self { client, name, identity, host, extensions, batch, waits: waits.clone() })
    }

    fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|one| one == extension)
    }

    /// Whether the server imports keys with all versions.
    fn takes_whole_keys(&self) -> bool {
        self.has(WHOLE_KEYS)
    }

    fn identity_of_place(&self) -> String {
        format!("kms: {}, enclave {}", self.host, self.name)
    }

    /// Sends commands until the server answers; the answer may be a refusal.
    async fn ask<M: Message + Default>(
        &self,
        action: Action,
        messages: &[impl Message],
    ) -> Result<Result<Vec<M>, client::Error>, Error> {
        patiently(&self.waits, || async {
            let asked = self.client.ask_all(self.name.as_str(), action, messages).await;
            settled(asked)
        })
        .await
    }

    /// Sends one command.
    async fn ask_one<M: Message + Default>(&self, action: Action, message: &impl Message) -> Result<M, Error> {
        let mut replies = self.ask(action, std::slice::from_ref(message)).await?.map_err(explain)?;
        Ok(replies.pop().expect("as many replies as commands"))
    }

    /// Sends many commands in one request. Returns an answer for each, in order.
    async fn ask_each<M: Message + Default>(
        &self,
        action: Action,
        messages: &[impl Message],
    ) -> Vec<Result<M, Refused>> {
        in_parts(messages, |part| self.ask(action, part).boxed()).await
    }

    /// Sends changes that are made together or not at all. They are sent again while the outcome is unknown; if the
    /// first attempt was done, the server refuses the second.
    async fn change(&self, commands: impl Fn() -> Commands) -> Result<Result<(), client::Error>, Error> {
        patiently(&self.waits, || async { settled(self.client.change(self.name.as_str(), commands()).await) }).await
    }

    async fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        self.each_key(|key| listing.insert(&key.name)).await?;
        Ok(listing.sorted())
    }

    /// The names of all keys, with their types.
    pub(super) async fn kinds(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut kinds = BTreeMap::new();
        self.each_key(|key| drop(kinds.insert(key.name.clone(), key.kind.clone()))).await?;
        Ok(kinds)
    }

    async fn each_key(&self, mut note: impl FnMut(&KeyStatus)) -> Result<(), Error> {
        let mut request = ListRequest::default();
        loop {
            let page: ListKeysResponse = self.ask_one(Action::KeyList, &request).await?;
            page.keys.iter().for_each(&mut note);
            if page.continue_at.is_empty() {
                break;
            }
            if page.continue_at <= request.continue_at {
                return Err(Error::Failed("the key manager's listing goes round in circles".into()));
            }
            request.continue_at = page.continue_at;
        }
        Ok(())
    }

    /// Checks that it has transit keys and gives them back, and that we may have them.
    pub(super) async fn check_transit(&self) -> Result<(), Error> {
        self.check_exports()?;
        if !self.has(TRANSIT_KEYS) {
            let host = &self.host;
            return Err(Error::Failed(format!("the key manager at {host} has no transit keys; update it").into()));
        }
        self.check_rights(Access::Create, true).await
    }

    /// Fails when the key manager cannot export keys.
    fn check_exports(&self) -> Result<(), Error> {
        if self.has(EXPORT) {
            return Ok(());
        }
        let host = &self.host;
        Err(Error::Failed(
            format!("the key manager at {host} hands no keys out; only Claviger's does, to system administrators")
                .into(),
        ))
    }
}

impl fmt::Display for Enclave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kms: {}, enclave {}", self.client.endpoint(), self.name)
    }
}

/// Why one command of many was not done.
enum Refused {
    /// The server refuses it.
    Refused(Box<client::Error>),
    /// There is no usable answer.
    Failed(Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Refused(error) => explain(*error),
            Refused::Failed(error) => error,
        }
    }
}

/// The result of a request about several things: an answer for each, or a refusal of all.
type Asked<'a, T> = BoxFuture<'a, Result<Result<Vec<T>, client::Error>, Error>>;

/// Asks about many things, with as many in a request as it can hold. The server refuses a whole request because of one
/// command in it, and does nothing. Then each half is sent by itself, down to the one that is refused.
async fn in_parts<'a, T, R>(things: &'a [T], ask: impl Fn(&'a [T]) -> Asked<'a, R>) -> Vec<Result<R, Refused>> {
    let mut answers = Vec::with_capacity(things.len());
    let mut parts: Vec<_> = things.chunks(BATCH).rev().collect();
    while let Some(part) = parts.pop() {
        match ask(part).await {
            Ok(Ok(replies)) => answers.extend(replies.into_iter().map(Ok)),
            Ok(Err(_)) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Ok(Err(refused)) => answers.push(Err(Refused::Refused(refused.into()))),
            Err(error) => {
                // The server has not answered for long enough: give up on the rest.
                let cause = error.to_string();
                answers.push(Err(Refused::Failed(error)));
                let unreachable = || Err(Refused::Failed(Error::Unreachable(cause.clone().into())));
                answers.resize_with(things.len(), unreachable);
                return answers;
            }
        }
    }
    answers
}

/// Makes an error of failures that may pass, so that the request is sent again. Everything else is an answer.
fn settled<T>(answer: Result<T, client::Error>) -> Result<Result<T, client::Error>, keystore::Error> {
    match answer {
        Err(error) if error::may_pass(&error) => Err(explain(error)),
        answer => Ok(answer),
    }
}
