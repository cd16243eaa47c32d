//! Tests of the whole state: data of another program, manipulated files, and rights.

mod cluster;
mod damage;
mod interleaving;
mod lies;
mod limits;
mod matrix;
mod power;
mod rotation;
mod secrets;
mod semantics;
mod transit;
mod writing;

use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::Deserialize;
use time::OffsetDateTime;

use super::command::{Change, Query};
use super::draft::{Author, Right};
use super::keeper::{Admin, Keeper};
use super::read::Reader;
use super::seal::{HsmKey, Provider, Providers};
use super::snapshot::Snapshot;
use super::store::{Batch, Mem, Store};
use super::turn::Turn;
use super::wire::{
    AssignPolicyRequest, ClusterStatusResponse, CreateIdentityRequest, CreateKeyRequest, CreatePolicyRequest, Encoding,
    NameRequest, Rule, RuleSet,
};
use super::{Action, Error};
use crate::auth::enclave::{ApiKey, Identity};
use crate::crypto::{SecretKey, base64};

/// What `testdata/kms/make.py` wrote.
#[derive(Deserialize)]
struct Vectors {
    hsm_key: String,
    root_api_key: String,
    root_identity: String,
    user_api_key: String,
    user_identity: String,
    seals: std::collections::BTreeMap<String, String>,
    records: Vec<(String, String)>,
    backup: String,
    ciphertext: String,
    mac_of_hello: String,
}

fn vectors() -> Vectors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/kms/formats.json");
    serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("valid")
}

fn decode(text: &str) -> Vec<u8> {
    base64::decode(text.as_bytes()).expect("base64").to_vec()
}

/// An identity that is nobody else's.
fn identity(seed: u8) -> Identity {
    ApiKey::from_seed(&SecretKey::from_slice(&[seed; 32]).expect("32 bytes")).identity()
}

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// The administrator's.
const ADMIN: u8 = 100;

fn admin() -> Admin {
    Admin { identity: identity(ADMIN), is_derived: false }
}

fn providers(names: &[(&str, &str)]) -> Providers {
    names.iter().map(|(name, key)| ((*name).to_owned(), Provider::Hsm(HsmKey::parse(key).expect("a key")))).collect()
}

const HSM: &str = "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";

fn keeper() -> Keeper {
    Keeper::open(Box::new(Mem::default()), providers(&[("env", HSM)]), admin()).expect("opened")
}

/// Carries out the commands of one request, as the thread that writes does.
fn change(keeper: &mut Keeper, caller: Identity, enclave: &str, commands: &[(Action, Change)]) -> Result<(), Error> {
    let mut pending = keeper.pending();
    let mut draft = keeper.draft(&pending, Author { caller, now: NOW, right: Right::Account });
    for (action, command) in commands {
        draft.apply(enclave, *action, command)?;
    }
    pending.add(keeper.prepare(draft)?);
    keeper.commit(pending).map_err(|error| Error::Unavailable(Arc::new(error)))
}

fn ask<M: prost::Message + Default>(
    keeper: &Keeper,
    caller: Identity,
    enclave: &str,
    action: Action,
    read: &Query,
) -> Result<M, Error> {
    let reader = Reader {
        snapshot: keeper.snapshot(),
        caller,
        enclave,
        encoding: Encoding::Protobuf,
        has_kes: false,
        cluster: &no_cluster,
    };
    Ok(M::decode(&**answer(&reader, action, read)?).expect("our own encoding"))
}

/// What a server without a cluster tells of it.
fn no_cluster(_: &Snapshot) -> ClusterStatusResponse {
    ClusterStatusResponse::default()
}

fn answer(reader: &Reader<'_>, action: Action, read: &Query) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
    let mut turn = Turn::endless();
    reader.answer(action, read, &mut turn).now_or_never().expect("nobody else gets a turn")
}

fn name(name: &str) -> NameRequest {
    NameRequest { name: name.into() }
}

fn create_key(name: &str) -> (Action, Change) {
    (Action::KeyCreate, Change::KeyCreate(CreateKeyRequest { name: name.into(), ..CreateKeyRequest::default() }))
}

fn create_enclave(enclave: &str) -> (Action, Change) {
    (Action::EnclaveCreate, Change::EnclaveCreate(name(enclave)))
}

fn create_identity(identity: Identity, privilege: &str) -> (Action, Change) {
    let (identity, privilege) = (identity.to_string(), privilege.to_owned());
    let request = CreateIdentityRequest { identity, privilege, ..CreateIdentityRequest::default() };
    (Action::IdentityCreate, Change::IdentityCreate(request))
}

fn create_service_account(identity: Identity) -> (Action, Change) {
    let identity = identity.to_string();
    let request = CreateIdentityRequest { identity, is_service_account: true, ..CreateIdentityRequest::default() };
    (Action::IdentityCreate, Change::IdentityCreate(request))
}

fn rules(rules: &[(Action, &str)]) -> std::collections::BTreeMap<String, RuleSet> {
    let set = |pattern: &str| RuleSet { rules: [(pattern.to_owned(), Rule {})].into() };
    rules.iter().map(|(action, pattern)| (action.to_string(), set(pattern))).collect()
}

fn create_policy(name: &str, allow: &[(Action, &str)], deny: &[(Action, &str)]) -> (Action, Change) {
    let request = CreatePolicyRequest { name: name.into(), allow: rules(allow), deny: rules(deny) };
    (Action::PolicyCreate, Change::PolicyCreate(request))
}

fn assign(policy: &str, identity: Identity) -> (Action, Change) {
    let request = AssignPolicyRequest { identity: identity.to_string(), policy: policy.into() };
    (Action::PolicyAssign, Change::PolicyAssign(request))
}
