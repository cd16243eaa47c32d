//! `/v1/key/…`: manages master keys, and encrypts and decrypts with them.

use super::State;
use super::error::{no_hmac, no_randomness, unsupported_algorithm, wrong_key_size};
use super::wire::{
    DecryptRequest, DecryptResponse, DescribeKeyResponse, EncryptRequest, EncryptResponse, GenerateRequest,
    HmacRequest, HmacResponse, ImportRequest, ListKeysResponse,
};
use crate::auth::Identity;
use crate::clock;
use crate::crypto::{Algorithm, DataKey, Key, SecretKey};
use crate::keys::New;
use crate::name::{KeyName, Pattern};
use crate::server::{Call, Error};

pub(super) async fn create(call: Call<State, KeyName>) -> Result<(), Error> {
    let key = Key::generate(Algorithm::preferred(), clock::now(), owner(&call)).map_err(no_randomness)?;
    call.state().keys.create(New { name: call.name(), key: &key, imported: false }).await?;
    tracing::info!(key = %call.name(), identity = owner(&call), "key created");
    Ok(())
}

pub(super) async fn import(call: Call<State, KeyName>, request: ImportRequest) -> Result<(), Error> {
    let cipher = request.cipher.unwrap_or_default();
    let algorithm = Algorithm::parse(&cipher).ok_or_else(|| unsupported_algorithm(&cipher))?;
    let secret = SecretKey::from_slice(&request.key).ok_or_else(|| wrong_key_size(&cipher))?;
    let key = Key::import(secret, algorithm, clock::now(), owner(&call)).map_err(no_randomness)?;
    call.state().keys.create(New { name: call.name(), key: &key, imported: true }).await?;
    tracing::info!(key = %call.name(), identity = owner(&call), "key imported");
    Ok(())
}

pub(super) async fn describe(call: Call<State, KeyName>) -> Result<DescribeKeyResponse, Error> {
    let key = call.state().keys.get(call.name()).await?;
    let key = key.latest();
    Ok(DescribeKeyResponse {
        name: call.name().to_string(),
        algorithm: key.algorithm().unwrap_or(Algorithm::Aes256).to_string(),
        created_at: key.created_at(),
        created_by: key.created_by().unwrap_or_default().to_owned(),
    })
}

pub(super) async fn delete(call: Call<State, KeyName>) -> Result<(), Error> {
    call.state().keys.delete(call.name(), call.caller().identity()).await?;
    tracing::info!(key = %call.name(), identity = owner(&call), "key deleted");
    Ok(())
}

pub(super) async fn list(call: Call<State, Pattern>) -> Result<ListKeysResponse, Error> {
    let page = call.state().keys.list(call.name()).await?;
    Ok(ListKeysResponse { names: page.names.iter().map(KeyName::to_string).collect(), continue_at: page.continue_at })
}

pub(super) async fn generate(call: Call<State, KeyName>, request: GenerateRequest) -> Result<DataKey, Error> {
    let key = call.state().keys.get(call.name()).await?;
    key.encrypting()?.generate_data_key(&request.context).map_err(no_randomness)
}

pub(super) async fn encrypt(call: Call<State, KeyName>, request: EncryptRequest) -> Result<EncryptResponse, Error> {
    let key = call.state().keys.get(call.name()).await?;
    let ciphertext = key.encrypting()?.encrypt(&request.plaintext, &request.context).map_err(no_randomness)?;
    Ok(EncryptResponse { ciphertext })
}

pub(super) async fn decrypt(call: Call<State, KeyName>, request: DecryptRequest) -> Result<DecryptResponse, Error> {
    let key = call.state().keys.get(call.name()).await?;
    Ok(DecryptResponse { plaintext: key.decrypt(&request.ciphertext, &request.context).await? })
}

pub(super) async fn hmac(call: Call<State, KeyName>, request: HmacRequest) -> Result<HmacResponse, Error> {
    let key = call.state().keys.get(call.name()).await?;
    Ok(HmacResponse { hmac: key.encrypting()?.hmac(&request.message).ok_or_else(no_hmac)? })
}

/// Whom a new key belongs to.
fn owner(call: &Call<State, KeyName>) -> &str {
    call.caller().identity().map_or("", Identity::as_str)
}
