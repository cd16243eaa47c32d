//! An enclave as target.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use time::OffsetDateTime;

use super::probe::Probed;
use super::{Enclave, explain, in_parts, settled};
use crate::client::{self, kms::Commands};
use crate::crypto::Algorithm;
use crate::keystore::{Access, Error, Listing};
use crate::kms::Action;
use crate::kms::wire::{DeleteKeyRequest, ImportKeyRequest, StoredVersion};
use crate::migrate::Target;
use crate::migrate::material::{Material, Numbers, Version};
use crate::migrate::target::{Other, There};
use crate::name::KeyName;

impl Enclave {
    /// The request that imports a key, with as much of the key as the server accepts.
    fn request(&self, name: &KeyName, key: &Material) -> Result<ImportKeyRequest, Error> {
        let name = name.to_string();
        if self.takes_whole_keys() {
            let stored = |version: &Version| StoredVersion {
                number: version.number,
                key: version.value.expose().to_vec(),
                imported: version.imported,
            };
            return Ok(ImportKeyRequest::whole(name, key.versions.iter().map(stored).collect(), key.next));
        }
        let [version] = key.versions.as_slice() else {
            return Err(Error::Failed("this key manager takes one version of a key".into()));
        };
        let key = version.key().map_err(|error| Error::Failed(error.into()))?;
        // A key without a type encrypts with this one.
        let kind = key.algorithm().unwrap_or(Algorithm::Aes256).to_string();
        Ok(ImportKeyRequest::bare(name, kind, key.expose().to_vec()))
    }

    /// Creates all of these keys, or none.
    async fn create_all(&self, keys: &[(&KeyName, &Material)]) -> Result<Result<Vec<()>, client::Error>, Error> {
        let requests: Result<Vec<_>, _> = keys.iter().map(|(name, key)| self.request(name, key)).collect();
        let requests = requests?;
        let done = self.change(|| Commands::default().and_all(Action::KeyImport, &requests)).await?;
        Ok(done.map(|()| vec![(); keys.len()]))
    }
}

/// How often a replacement is sent whose answer is lost. The questions before each wait for the server to be back.
const REPLACES: usize = 5;

const CHANGED: &str = "the key has been replaced by another one since the plan was made; it was left as it is";

/// Why a key with this latest version must not be replaced; `None` when it may.
fn rotated(name: &KeyName, latest: u32) -> Option<String> {
    (latest > 1).then(|| {
        format!(
            "it has been rotated there up to version {latest}, and replacing it would lose what these versions encrypted; \
             if that is wanted, remove it first: claviger kms rm-key {name} --all"
        )
    })
}

#[async_trait]
impl Target for Enclave {
    async fn identity(&self) -> Result<Option<String>, Error> {
        Ok(Some(self.identity_of_place()))
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        self.check_rights(access, false).await
    }

    async fn list(&self) -> Result<Listing, Error> {
        Self::list(self).await
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn losses(&self, key: &Material) -> Result<Vec<String>, String> {
        if self.takes_whole_keys() {
            return Ok(Vec::new());
        }
        let [version] = key.versions.as_slice() else {
            let numbers: Vec<_> = key.versions.iter().map(|version| version.number).collect();
            let numbers = Numbers(&numbers);
            return Err(format!("it has {numbers}, and this key manager takes one: move one with --only-version"));
        };
        let key = version.key().map_err(|error| error.to_string())?;
        let mut lost = Vec::new();
        if key.created_at() > OffsetDateTime::UNIX_EPOCH {
            lost.push("creation time".to_owned());
        }
        if key.has_hmac() {
            lost.push("HMAC key".into());
        }
        if key.created_by().is_some() {
            lost.push("owner".into());
        }
        if key.algorithm().is_none() {
            lost.push("that it names no algorithm".into());
        }
        Ok(lost)
    }

    async fn compare(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<There, Error>> {
        let probed = self.probe(keys).await;
        let found = |((name, _), probed): (&(&KeyName, &Material), Result<Probed, Error>)| {
            Ok(match probed? {
                Probed { is_same: true, .. } => There::Same,
                Probed { latest, witness, .. } => {
                    There::Other(Other { keep: rotated(name, latest), witness, ..Other::default() })
                }
            })
        };
        keys.iter().zip(probed).map(found).collect()
    }

    /// Only builds the request: nothing else can fail before sending.
    async fn rehearse(&self, name: &KeyName, key: &Material) -> Result<(), Error> {
        self.request(name, key).map(drop)
    }

    async fn create(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<(), Error>> {
        let answers = in_parts(keys, |part| self.create_all(part).boxed()).await;
        answers.into_iter().map(|answer| answer.map_err(Error::from)).collect()
    }

    /// One request, which is done as a whole or not at all: at no moment is there neither. Not for a key that has been
    /// rotated or replaced since it was found; whether it was is asked anew before the request is sent again.
    async fn replace(&self, name: &KeyName, found: &Other, key: &Material) -> Result<(), Error> {
        if let Some(reason) = &found.keep {
            return Err(Error::Failed(reason.clone().into()));
        }
        let import = self.request(name, key)?;
        let delete = DeleteKeyRequest { name: name.to_string(), version: 0, all_versions: true };
        let mut lost = None;
        for _ in 0..REPLACES {
            if let Some(witness) = &found.witness
                && !self.decrypts_witness(name, witness).await?
            {
                // Perhaps ours is there: what was lost was the answer.
                let arrived = lost.is_some() && self.probe(&[(name, key)]).await.pop().expect("an answer")?.is_same;
                return if arrived { Ok(()) } else { Err(Error::Failed(CHANGED.into())) };
            }
            if let Some(reason) = rotated(name, self.latest(name).await?) {
                return Err(Error::Failed(reason.into()));
            }
            let commands = Commands::one(Action::KeyDelete, &delete).and(Action::KeyImport, &import);
            match settled(self.client.change(self.name.as_str(), commands).await) {
                Ok(answer) => return answer.map_err(explain),
                Err(error) => lost = Some(error),
            }
        }
        Err(lost.unwrap_or_else(|| Error::Failed(CHANGED.into())))
    }

    async fn prove(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<bool, Error>> {
        let probed = self.probe(keys).await;
        probed.into_iter().map(|probed| probed.map(|probed| probed.is_same)).collect()
    }

    fn proof(&self) -> &'static str {
        "proven: each side decrypts what the other encrypts"
    }
}
