//! Reads: answers commands from one snapshot, without waiting for writes.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use zeroize::Zeroizing;

use super::account::Account;
use super::command::Query;
use super::map::Map;
use super::policy::{self, Policy};
use super::ring::{Ring, Version};
use super::snapshot::{Enclave, Retired, Snapshot, Standing};
use super::transit;
use super::turn::Turn;
use super::wire::{
    ClusterStatusResponse, DecryptRequest, DecryptResponse, EnclaveStatus, Encoding, EncryptRequest, EncryptResponse,
    ExportKeysRequest, ExportKeysResponse, ExportedKeys, GenerateKeyRequest, GenerateKeyResponse, IdentityResponse,
    ImportKeyRequest, KeyStatus, KeyVersionRequest, ListEnclavesResponse, ListIdentitiesResponse, ListKeysResponse,
    ListPoliciesResponse, ListRequest, MacRequest, MacResponse, PolicyResponse, PolicyStatus, Response,
};
use super::{Action, Error};
use crate::auth::enclave::Identity;
use crate::crypto::handover::{self, Handed};
use crate::crypto::{OVERHEAD, random};
use crate::name::{EnclaveName, PolicyName};

/// The longest data key, in bytes.
const LONGEST_KEY: usize = 1_024;

/// The size of a page of a listing, in bytes of protobuf: well inside what clients read.
const PAGE: usize = 1_000_000;

/// The most that keys may be that are exported together, in bytes.
const EXPORT: usize = 16_000_000;

/// Who asks, and of which state.
pub(super) struct Reader<'a> {
    /// The state, the same for a whole request.
    pub snapshot: &'a Snapshot,
    /// Who asks.
    pub caller: Identity,
    /// The enclave that the path names; may be empty.
    pub enclave: &'a str,
    /// How to encode the answer.
    pub encoding: Encoding,
    /// Whether a listener for the KES API serves that enclave.
    pub has_kes: bool,
    /// What the server itself tells system administrators.
    pub cluster: &'a (dyn Fn(&Snapshot) -> ClusterStatusResponse + Sync),
}

/// An encoded message, wiped when it has been sent.
type Encoded = Zeroizing<Vec<u8>>;

impl Reader<'_> {
    /// Answers one command.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) async fn answer(&self, action: Action, query: &Query, turn: &mut Turn) -> Result<Encoded, Error> {
        let inside = || self.inside(action);
        match query {
            Query::ClusterStatus(_) => self.encode(&(self.cluster)(self.as_sysadmin()?)),
            Query::EnclaveStatus(request) => self.encode(&enclave_status(self.enclave(&request.name)?)),
            Query::EnclaveList(request) => self.encode(&self.list_enclaves(request, turn).await?),
            Query::KeyStatus(request) => self.encode(&inside()?.key_status(request)?),
            Query::KeyEncrypt(request) => self.encode(&inside()?.encrypt(request)?),
            Query::KeyDecrypt(request) => self.encode(&inside()?.decrypt(request, turn).await?),
            Query::KeyGenerate(request) => self.encode(&inside()?.generate(request)?),
            Query::KeyMac(request) => self.encode(&inside()?.mac(request)?),
            Query::KeyList(request) => self.encode(&inside()?.list_keys(request, turn).await?),
            Query::KeyListVersions(request) => self.encode(&inside()?.list_versions(request, turn).await?),
            Query::KeyExport(request) => self.encode(&inside()?.export(request, turn).await?),
            Query::PolicyGet(request) => self.encode(&inside()?.policy(&request.name).map(policy_response)?),
            Query::PolicyStatus(request) => self.encode(&inside()?.policy(&request.name).map(policy_status)?),
            Query::PolicyList(request) => self.encode(&inside()?.list_policies(request, turn).await?),
            Query::IdentityStatus(request) => self.encode(&inside()?.identity(&request.identity, turn).await?),
            Query::IdentityList(request) => self.encode(&inside()?.list_identities(request, turn).await?),
        }
    }

    fn encode(&self, response: &impl Response) -> Result<Encoded, Error> {
        Ok(self.encoding.encode(response))
    }

    /// Everything there is, for those who may see it.
    fn as_sysadmin(&self) -> Result<&Snapshot, Error> {
        if self.snapshot.is_sysadmin(&self.caller) { Ok(self.snapshot) } else { Err(Error::Denied) }
    }

    /// The enclave of the path, and what the caller may do in it.
    fn inside(&self, action: Action) -> Result<Inside<'_>, Error> {
        let (enclave, standing) = self.snapshot.enter(self.enclave, &self.caller)?;
        Ok(Inside { reader: self, enclave, standing, action })
    }

    fn enclave(&self, name: &str) -> Result<&Enclave, Error> {
        self.as_sysadmin()?.enclave(name).map(|enclave| &**enclave).ok_or(Error::NoEnclave)
    }

    async fn list_enclaves(&self, request: &ListRequest, turn: &mut Turn) -> Result<ListEnclavesResponse, Error> {
        let show = |_: &EnclaveName, enclave: &Arc<Enclave>| {
            (enclave.retired < Retired::Gone).then(|| enclave_status(enclave))
        };
        let (enclaves, next) = page(&self.as_sysadmin()?.enclaves, request, turn, show).await;
        Ok(ListEnclavesResponse { enclaves, continue_at: next })
    }
}

/// Answers a command within an enclave.
struct Inside<'a> {
    reader: &'a Reader<'a>,
    enclave: &'a Enclave,
    standing: Standing,
    action: Action,
}

impl Inside<'_> {
    fn authorize(&self, name: &str) -> Result<(), Error> {
        self.standing.authorize(self.action, name)
    }

    /// The key that a command is about.
    fn key(&self, name: &str) -> Result<&Ring, Error> {
        self.authorize(name)?;
        Ok(self.enclave.key(name)?)
    }

    /// The key that a command encrypts or signs with.
    fn key_for_use(&self, name: &str) -> Result<&Ring, Error> {
        let ring = self.key(name)?;
        self.enclave.is_kept()?;
        Ok(ring)
    }

    fn key_status(&self, request: &KeyVersionRequest) -> Result<KeyStatus, Error> {
        self.authorize(&request.name)?;
        if let Ok(key) = self.enclave.transit(&request.name) {
            let (number, version) = key.version(request.version).ok_or(Error::NoKey)?;
            return Ok(transit_status(key, number, version));
        }
        let ring = self.enclave.key(&request.name)?;
        let (number, version) = ring.version(request.version)?;
        let fits_a_kes = self.reader.has_kes && ring.next == 2;
        Ok(KeyStatus { fits_a_kes, ..key_status(ring, number, version) })
    }

    fn encrypt(&self, request: &EncryptRequest) -> Result<EncryptResponse, Error> {
        let (number, version) = self.key_for_use(&request.name)?.encrypting(request.version)?;
        let ciphertext = version.key.encrypt(&request.plaintext, &request.associated_data)?;
        Ok(EncryptResponse { version: number, ciphertext })
    }

    async fn decrypt(&self, request: &DecryptRequest, turn: &mut Turn) -> Result<DecryptResponse, Error> {
        let ring = self.key(&request.name)?;
        let (ciphertext, context) = (&request.ciphertext, &request.associated_data);
        let mut plaintext = match request.version {
            0 => ring.decrypt_any(ciphertext, context, turn).await?.1,
            number => ring.version(number)?.1.decrypt(ciphertext, context)?,
        };
        Ok(DecryptResponse { plaintext: std::mem::take(&mut *plaintext) })
    }

    fn generate(&self, request: &GenerateKeyRequest) -> Result<GenerateKeyResponse, Error> {
        let (number, version) = self.key_for_use(&request.name)?.encrypting(request.version)?;
        if let 0 | 32 = request.length {
            let data_key = version.key.generate_data_key(&request.associated_data)?;
            let (plaintext, ciphertext) = (data_key.plaintext.expose().to_vec(), data_key.ciphertext.to_vec());
            return Ok(GenerateKeyResponse { version: number, plaintext, ciphertext });
        }
        let len = usize::try_from(request.length).ok().filter(|len| *len <= LONGEST_KEY);
        let len = len.ok_or_else(|| Error::invalid("a data key has at most 1024 bytes"))?;
        let mut response = GenerateKeyResponse {
            version: number,
            plaintext: vec![0; len],
            ciphertext: Vec::with_capacity(len + OVERHEAD),
        };
        random::fill(&mut response.plaintext)?;
        response.ciphertext = version.key.encrypt(&response.plaintext, &request.associated_data)?;
        Ok(response)
    }

    fn mac(&self, request: &MacRequest) -> Result<MacResponse, Error> {
        let (number, version) = self.key_for_use(&request.name)?.encrypting(request.version)?;
        let mac = version.key.hmac(&request.message).ok_or(Error::NoHmac)?;
        Ok(MacResponse { version: number, mac: mac.to_vec() })
    }

    async fn list_keys(&self, request: &ListRequest, turn: &mut Turn) -> Result<ListKeysResponse, Error> {
        self.authorize(&request.prefix)?;
        let show = |name: &str, key: &AnyKey<'_>| self.shows(name).then(|| key.status());
        let (keys, continue_at) = page_of(keys_from(self.enclave, begin(request)), request, turn, show).await;
        Ok(ListKeysResponse { keys, continue_at })
    }

    async fn list_versions(&self, request: &ListRequest, turn: &mut Turn) -> Result<ListKeysResponse, Error> {
        self.authorize(&request.prefix)?;
        let first = match request.continue_at.as_str() {
            "" => 0,
            number => number.parse().map_err(|_| Error::invalid("'continue_at' is no number of a version"))?,
        };
        let versions: Box<dyn Iterator<Item = KeyStatus> + Send> = match self.enclave.transit(&request.prefix) {
            Ok(key) => Box::new(key.versions_from(first).map(|(number, version)| transit_status(key, number, version))),
            Err(_) => {
                let ring = self.enclave.key(&request.prefix)?;
                Box::new(ring.versions_from(first).map(|(number, version)| key_status(ring, number, version)))
            }
        };
        let mut pager = Pager::new(request.limit);
        let mut response = ListKeysResponse::default();
        for status in versions {
            if !pager.has_room() {
                response.continue_at = status.version.to_string();
                break;
            }
            pager.add(&status);
            response.keys.push(status);
            turn.step().await;
        }
        Ok(response)
    }

    async fn export(&self, request: &ExportKeysRequest, turn: &mut Turn) -> Result<ExportKeysResponse, Error> {
        self.authorize("")?;
        self.enclave.is_kept()?;
        let (mut keys, mut len) = (ExportedKeys::default(), 0);
        for name in &request.names {
            let key = match self.enclave.transit(name) {
                Ok(key) if key.is_retired() => return Err(Error::KeyRetired),
                Ok(key) => ImportKeyRequest::transit(name.clone(), key.to_message()),
                Err(_) => self.enclave.key(name)?.to_request()?,
            };
            len += key.encoded_len();
            keys.keys.push(key);
            if len > EXPORT {
                return Err(Error::invalid("the keys are too large to be exported together: ask for fewer"));
            }
            turn.pass().await;
        }
        let bytes = Zeroizing::new(keys.encode_to_vec());
        let handed = handover::seal(&request.recipient, self.enclave.name.as_str().as_bytes(), &bytes);
        let Handed { encapsulated, sealed } = handed.ok_or_else(|| Error::invalid("the recipient is no public key"))?;
        Ok(ExportKeysResponse { encapsulated, sealed })
    }

    fn policy(&self, name: &str) -> Result<&Policy, Error> {
        self.authorize(name)?;
        Ok(self.enclave.policy(name)?)
    }

    async fn list_policies(&self, request: &ListRequest, turn: &mut Turn) -> Result<ListPoliciesResponse, Error> {
        self.authorize(&request.prefix)?;
        let show = |name: &PolicyName, policy: &Arc<Policy>| self.shows(name.as_str()).then(|| policy_status(policy));
        let (policies, continue_at) = page(&self.enclave.policies, request, turn, show).await;
        Ok(ListPoliciesResponse { policies, continue_at })
    }

    async fn identity(&self, text: &str, turn: &mut Turn) -> Result<IdentityResponse, Error> {
        self.authorize(text)?;
        let identity: Identity = text.parse().map_err(|_| Error::NoIdentity)?;
        // The administrator has no account in any enclave, but may still read its own identity.
        if identity == self.reader.snapshot.admin && self.reader.caller == identity {
            return Ok(IdentityResponse { identity: text.to_owned(), privilege: 1, ..IdentityResponse::default() });
        }
        let account = self.enclave.account(&identity)?;
        let mut of_this = Vec::new();
        for other in self.enclave.identities.values() {
            if other.parent == Some(identity) {
                of_this.push(other.identity.to_string());
            }
            turn.step().await;
        }
        Ok(self.show_account(account, of_this))
    }

    async fn list_identities(&self, request: &ListRequest, turn: &mut Turn) -> Result<ListIdentitiesResponse, Error> {
        self.authorize(&request.prefix)?;
        let mut service_accounts = BTreeMap::<Identity, Vec<String>>::new();
        for account in self.enclave.identities.values() {
            if let Some(parent) = account.parent {
                service_accounts.entry(parent).or_default().push(account.identity.to_string());
            }
            turn.step().await;
        }
        let show = |identity: &Identity, account: &Arc<Account>| {
            let of_this = || service_accounts.get(identity).cloned().unwrap_or_default();
            self.shows(identity.as_str()).then(|| self.show_account(account, of_this()))
        };
        let (identities, continue_at) = page(&self.enclave.identities, request, turn, show).await;
        Ok(ListIdentitiesResponse { identities, continue_at })
    }

    /// Whether a listing may show this name. The rules may allow the prefix and deny single names.
    fn shows(&self, name: &str) -> bool {
        self.standing.allows(self.action, name)
    }

    fn show_account(&self, account: &Account, service_accounts: Vec<String>) -> IdentityResponse {
        let standing = self.reader.snapshot.local_standing(self.enclave, &account.identity);
        let having = account.parent.map_or(Some(account), |parent| self.enclave.identities.get(&parent).map(|p| &**p));
        let policy = match standing {
            Standing::User(_) => having.and_then(|account| account.policy.as_ref()),
            _ => None,
        };
        IdentityResponse {
            identity: account.identity.to_string(),
            privilege: standing.privilege().number(),
            policy: policy.map(PolicyName::to_string).unwrap_or_default(),
            created_at: Some(account.created_at.into()),
            created_by: account.created_by.clone(),
            is_service_account: account.parent.is_some(),
            service_accounts,
            tags: account.tags.clone(),
        }
    }
}

/// Counts how much fits on a page.
struct Pager {
    elements: usize,
    bytes: usize,
}

impl Pager {
    fn new(limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { elements: if limit == 0 { usize::MAX } else { limit }, bytes: PAGE }
    }

    fn has_room(&self) -> bool {
        self.elements > 0 && self.bytes > 0
    }

    fn add(&mut self, element: &impl prost::Message) {
        self.elements -= 1;
        self.bytes = self.bytes.saturating_sub(element.encoded_len() + 4);
    }
}

/// A key of any kind.
enum AnyKey<'a> {
    Ring(&'a Ring),
    Transit(&'a transit::Key),
}

impl AnyKey<'_> {
    /// The status of the latest version.
    fn status(&self) -> KeyStatus {
        match self {
            Self::Ring(ring) => {
                let (number, version) = ring.latest();
                key_status(ring, number, version)
            }
            Self::Transit(key) => {
                let (number, version) = key.version(0).expect("a key has a latest version");
                transit_status(key, number, version)
            }
        }
    }
}

/// The keys of every kind in the order of their names, from a name on.
fn keys_from<'a>(enclave: &'a Enclave, first: &str) -> impl Iterator<Item = (&'a str, AnyKey<'a>)> {
    let rings = enclave.keys.range_from(first).map(|(name, ring)| (name.as_str(), AnyKey::Ring(ring)));
    let transit = enclave.transit.range_from(first).map(|(name, key)| (name.as_str(), AnyKey::Transit(key)));
    let (mut rings, mut transit) = (rings.peekable(), transit.peekable());
    std::iter::from_fn(move || match (rings.peek(), transit.peek()) {
        (Some((ring, _)), Some((key, _))) if key < ring => transit.next(),
        (Some(_), _) => rings.next(),
        (None, _) => transit.next(),
    })
}

/// The name that a page begins with, or may.
fn begin(request: &ListRequest) -> &str {
    if request.continue_at.is_empty() { &request.prefix } else { &request.continue_at }
}

/// The elements of a page, and the name of the first one of the next, if there is one.
async fn page<K: Ord + Clone + Borrow<str>, V, T: prost::Message>(
    map: &Map<K, V>,
    request: &ListRequest,
    turn: &mut Turn,
    show: impl Fn(&K, &Arc<V>) -> Option<T>,
) -> (Vec<T>, String) {
    let entries = map.range_from(begin(request)).map(|(name, value)| (name.borrow(), (name, value)));
    page_of(entries, request, turn, |_, (name, value)| show(name, value)).await
}

/// The same of entries that begin where the page may.
async fn page_of<'m, E, T: prost::Message>(
    entries: impl Iterator<Item = (&'m str, E)>,
    request: &ListRequest,
    turn: &mut Turn,
    show: impl Fn(&str, &E) -> Option<T>,
) -> (Vec<T>, String) {
    if !begin(request).starts_with(&request.prefix) {
        return (Vec::new(), String::new());
    }
    let mut pager = Pager::new(request.limit);
    let mut elements = Vec::new();
    for (name, entry) in entries {
        if !name.starts_with(&request.prefix) {
            break;
        }
        turn.step().await;
        let Some(element) = show(name, &entry) else { continue };
        if !pager.has_room() {
            return (elements, name.to_owned());
        }
        pager.add(&element);
        elements.push(element);
    }
    (elements, String::new())
}

fn enclave_status(enclave: &Enclave) -> EnclaveStatus {
    EnclaveStatus {
        name: enclave.name.to_string(),
        created_at: Some(enclave.created_at.into()),
        created_by: enclave.created_by.clone(),
    }
}

fn key_status(ring: &Ring, number: u32, version: &Version) -> KeyStatus {
    KeyStatus {
        name: ring.name.to_string(),
        version: number,
        kind: version.algorithm().to_string(),
        created_at: Some(version.key.created_at().into()),
        created_by: version.created_by(),
        fits_a_kes: false,
    }
}

fn transit_status(key: &transit::Key, number: u32, version: &transit::Version) -> KeyStatus {
    KeyStatus {
        name: key.name().to_string(),
        version: number,
        kind: key.settings().kind.as_str().to_owned(),
        created_at: Some(version.created_at().into()),
        created_by: version.created_by().to_owned(),
        fits_a_kes: false,
    }
}

fn policy_status(policy: &Policy) -> PolicyStatus {
    PolicyStatus {
        name: policy.name.to_string(),
        created_at: Some(policy.created_at.into()),
        created_by: policy.created_by.clone(),
    }
}

fn policy_response(policy: &Policy) -> PolicyResponse {
    PolicyResponse {
        name: policy.name.to_string(),
        allow: policy::show(&policy.allow),
        deny: policy::show(&policy.deny),
        created_at: Some(policy.created_at.into()),
        created_by: policy.created_by.clone(),
    }
}
