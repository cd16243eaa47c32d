//! An enclave as source. Only Claviger's key manager exports keys: sealed to a key pair that is made for each request.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use prost::Message as _;
use zeroize::Zeroizing;

use super::{Enclave, explain, in_parts};
use crate::client::{self, kms::Commands};
use crate::crypto::handover::{Handed, Recipient};
use crate::keystore::{Access, Error, Listing};
use crate::kms::Action;
use crate::kms::wire::{
    ExportKeysRequest, ExportKeysResponse, ExportedKeys, ImportKeyRequest, StoredVersion, TransitKey,
};
use crate::migrate::Source;
use crate::migrate::material::{Material, Version};
use crate::name::{KeyName, TransitName};

impl Enclave {
    /// Exports these keys: all of them, or an error for all.
    async fn export(&self, names: &[KeyName]) -> Result<Result<Vec<Material>, client::Error>, Error> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let exported = match self.export_any(&names).await? {
            Ok(exported) => exported,
            Err(refused) => return Ok(Err(refused)),
        };
        let materials: Option<Vec<_>> = exported.keys.into_iter().map(material).collect();
        Ok(Ok(materials.ok_or_else(|| wrong("holds a key without versions"))?))
    }

    /// Exports a transit key.
    pub(in crate::migrate) async fn export_transit(&self, name: &TransitName) -> Result<TransitKey, Error> {
        let mut exported = self.export_any(&[name.as_str().to_owned()]).await?.map_err(explain)?;
        let key = exported.keys.first_mut().and_then(|key| key.transit.take());
        key.ok_or_else(|| wrong("holds no transit key"))
    }

    /// Imports a transit key. There must be no key of this name.
    pub(in crate::migrate) async fn import_transit(&self, name: &TransitName, key: &TransitKey) -> Result<(), Error> {
        let request = ImportKeyRequest::transit(name.as_str().to_owned(), key.clone());
        self.change(|| Commands::one(Action::KeyImport, &request)).await?.map_err(explain)
    }

    /// Exports keys of any kind.
    async fn export_any(&self, names: &[String]) -> Result<Result<ExportedKeys, client::Error>, Error> {
        let recipient = Recipient::generate().map_err(|error| Error::Failed(error.into()))?;
        let request = ExportKeysRequest { names: names.to_vec(), recipient: recipient.public().to_vec() };
        let mut replies: Vec<ExportKeysResponse> = match self.ask(Action::KeyExport, &[request]).await? {
            Ok(replies) => replies,
            Err(refused) => return Ok(Err(refused)),
        };
        let ExportKeysResponse { encapsulated, sealed } = replies.pop().expect("as many replies as commands");
        let opened = recipient.open(Handed { encapsulated, sealed }, self.name.as_str().as_bytes());
        let opened: Zeroizing<_> = opened.map_err(|_| wrong("is not sealed to us"))?;
        let exported = ExportedKeys::decode(opened.as_slice()).map_err(|_| wrong("is malformed"))?;
        if exported.keys.iter().map(|key| key.name.as_str()).ne(names.iter().map(String::as_str)) {
            return Err(wrong("does not hold the keys that were asked for"));
        }
        Ok(Ok(exported))
    }
}

fn wrong(what: &'static str) -> Error {
    Error::Failed(format!("the key manager's export {what}").into())
}

fn material(mut key: ImportKeyRequest) -> Option<Material> {
    let version = |version: &mut StoredVersion| Version {
        number: version.number,
        value: std::mem::take(&mut version.key).into(),
        imported: version.imported,
    };
    let versions: Vec<_> = key.versions.iter_mut().map(version).collect();
    (!versions.is_empty()).then_some(Material { versions, next: key.next })
}

#[async_trait]
impl Source for Enclave {
    async fn identity(&self) -> Result<String, Error> {
        Ok(self.identity_of_place())
    }

    async fn check(&self) -> Result<(), Error> {
        self.check_exports()?;
        self.check_rights(Access::Read, true).await
    }

    async fn list(&self) -> Result<Listing, Error> {
        Self::list(self).await
    }

    fn batch(&self) -> usize {
        self.batch
    }

    async fn read(&self, names: &[KeyName]) -> Vec<Result<Material, Error>> {
        let answers = in_parts(names, |part| self.export(part).boxed()).await;
        answers.into_iter().map(|answer| answer.map_err(Error::from)).collect()
    }
}
