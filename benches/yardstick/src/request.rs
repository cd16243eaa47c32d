//! One request: policy, key, JSON, cryptography. Nothing here waits.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use aes_gcm::{AeadInOut as _, Aes256Gcm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::StatusCode;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const IV: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;

/// SHA-256 of a certificate's public key.
pub type Identity = [u8; 32];

pub fn identity(certificate: &[u8]) -> Identity {
    let certificate = certificate.into();
    let certificate = webpki::EndEntityCert::try_from(&certificate).expect("an X.509 certificate");
    Sha256::digest(certificate.subject_public_key_info().as_ref()).into()
}

type Key = Hmac<Sha256>;

struct Policy {
    allow: Vec<String>,
    deny: Vec<String>,
}

pub struct App {
    keys: RwLock<HashMap<String, Arc<Key>>>,
    policies: RwLock<HashMap<Identity, Arc<Policy>>>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    context: &'a str,
    #[serde(borrow, default)]
    ciphertext: &'a str,
}

#[derive(Serialize)]
struct DataKey {
    plaintext: String,
    ciphertext: String,
}

#[derive(Serialize)]
struct Plaintext {
    plaintext: String,
}

type Reply = (StatusCode, Vec<u8>);

impl App {
    /// A hundred keys, fifty policies, one of them the member's.
    pub fn for_member(member: Identity) -> Self {
        let keys = (0..100).map(|n| (format!("bench-{n}"), [n; 32]));
        let keys = keys.map(|(name, key)| (name, Arc::new(Key::new_from_slice(&key).expect("any length"))));
        let mut policies: HashMap<_, _> =
            (0..50).map(|n| ([n; 32], Arc::new(Policy { allow: Vec::new(), deny: Vec::new() }))).collect();
        let rules = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        let policy = Policy {
            allow: rules(&[
                "/v1/key/create/bench-*",
                "/v1/key/list/*",
                "/v1/key/generate/bench-*",
                "/v1/key/decrypt/bench-*",
            ]),
            deny: rules(&["/v1/key/generate/bench-internal-*", "/v1/key/delete/*"]),
        };
        policies.insert(member, Arc::new(policy));
        Self { keys: RwLock::new(keys.collect()), policies: RwLock::new(policies) }
    }

    pub fn answer(&self, identity: &Identity, path: &str, body: &[u8]) -> Reply {
        let policy = self.policies.read().expect("nobody panics").get(identity).cloned();
        let allows = |policy: &Policy| {
            let matches = |rule: &String| glob(rule.as_bytes(), path.as_bytes());
            !policy.deny.iter().any(matches) && policy.allow.iter().any(matches)
        };
        if !policy.is_some_and(|policy| allows(&policy)) {
            return failure(StatusCode::FORBIDDEN, "not authorized");
        }
        let (name, run): (_, fn(&Key, &Request) -> Option<Vec<u8>>) =
            if let Some(name) = path.strip_prefix("/v1/key/generate/") {
                (name, generate)
            } else if let Some(name) = path.strip_prefix("/v1/key/decrypt/") {
                (name, decrypt)
            } else {
                return failure(StatusCode::NOT_FOUND, "page not found");
            };
        if name.len() > 80 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return failure(StatusCode::BAD_REQUEST, "invalid key name");
        }
        let Some(key) = self.keys.read().expect("nobody panics").get(name).cloned() else {
            return failure(StatusCode::NOT_FOUND, "key does not exist");
        };
        match serde_json::from_slice(body).ok().and_then(|request| run(&key, &request)) {
            Some(reply) => (StatusCode::OK, reply),
            None => failure(StatusCode::BAD_REQUEST, "invalid request"),
        }
    }
}

fn failure(status: StatusCode, message: &str) -> Reply {
    (status, format!("{{\"message\":\"{message}\"}}").into_bytes())
}

fn generate(key: &Key, request: &Request<'_>) -> Option<Vec<u8>> {
    let context = STANDARD.decode(request.context).ok()?;
    let mut random = [0; 32 + IV + NONCE];
    rand::rng().fill_bytes(&mut random);
    let (plaintext, trailer) = random.split_at(32);
    let mut ciphertext = [0; 32 + TAG + IV + NONCE];
    let (message, rest) = ciphertext.split_at_mut(32);
    message.copy_from_slice(plaintext);
    let nonce = <[u8; NONCE]>::try_from(&trailer[IV..]).ok()?;
    let tag = cipher(key, &trailer[..IV]).encrypt_inout_detached(&nonce.into(), &context, message.into()).ok()?;
    rest[..TAG].copy_from_slice(&tag);
    rest[TAG..].copy_from_slice(trailer);
    let reply = DataKey { plaintext: STANDARD.encode(plaintext), ciphertext: STANDARD.encode(ciphertext) };
    serde_json::to_vec(&reply).ok()
}

fn decrypt(key: &Key, request: &Request<'_>) -> Option<Vec<u8>> {
    let context = STANDARD.decode(request.context).ok()?;
    let mut ciphertext = STANDARD.decode(request.ciphertext).ok()?;
    let (sealed, trailer) = ciphertext.split_last_chunk_mut::<{ IV + NONCE }>()?;
    let (message, tag) = sealed.split_last_chunk_mut::<TAG>()?;
    let nonce = <[u8; NONCE]>::try_from(&trailer[IV..]).ok()?;
    cipher(key, &trailer[..IV])
        .decrypt_inout_detached(&nonce.into(), &context, (&mut *message).into(), (&*tag).into())
        .ok()?;
    serde_json::to_vec(&Plaintext { plaintext: STANDARD.encode(message) }).ok()
}

fn cipher(key: &Key, iv: &[u8]) -> Aes256Gcm {
    let mut subkey = key.clone();
    subkey.update(iv);
    Aes256Gcm::new(&subkey.finalize().into_bytes())
}

/// `*` stands for anything but a slash.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, mark)) = star.filter(|(_, mark)| text[*mark] != b'/') {
            star = Some((at, mark + 1));
            (p, t) = (at + 1, mark + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}
