//! Transit: keys, and what is encrypted and signed with them.

mod batch;
mod keys;

use std::borrow::Cow;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::batch::Outcome;
use super::State;
use super::body::{self, Batch, Number, Text};
use super::reply::{self, bad};
use super::target::{DataKey, Hash, Use};
use crate::crypto::{base64, random};
use crate::kms::Entry;
use crate::kms::transit::{Key, Refused};
use crate::server::{Error, Reply};

pub(super) use self::keys::list;

/// What a client sends to use a key: for one text, or as an item of a batch.
#[derive(Debug, Deserialize)]
pub(super) struct Item<'b> {
    #[serde(borrow)]
    plaintext: Option<Text<'b>>,
    #[serde(borrow)]
    ciphertext: Option<Text<'b>>,
    #[serde(borrow)]
    input: Option<Text<'b>>,
    #[serde(borrow)]
    hmac: Option<Text<'b>>,
    #[serde(borrow)]
    context: Option<Text<'b>>,
    #[serde(borrow)]
    associated_data: Option<Text<'b>>,
    key_version: Option<Number>,
    #[serde(borrow)]
    reference: Option<Text<'b>>,
    // What follows is for no item.
    #[serde(borrow)]
    batch_input: Option<Batch<Item<'b>>>,
    partial_failure_response_code: Option<Number>,
    #[serde(borrow)]
    algorithm: Option<Text<'b>>,
    bits: Option<Number>,
}

/// What is answered for one text.
#[derive(Default, Serialize)]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "secret")]
    plaintext: Option<Zeroizing<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hmac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_version: Option<u32>,
}

#[expect(clippy::ref_option, reason = "serde hands a reference over")]
fn secret<S: serde::Serializer>(text: &Option<Zeroizing<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => serializer.serialize_str(text),
        None => serializer.serialize_none(),
    }
}

impl Answer {
    /// About how long its JSON is, in bytes.
    fn size(&self) -> usize {
        let texts =
            [self.ciphertext.as_deref(), self.plaintext.as_ref().map(|text| text.as_str()), self.hmac.as_deref()];
        128 + texts.into_iter().flatten().map(str::len).sum::<usize>()
    }
}

/// Answers a request about one key.
pub(super) async fn answer(state: &State, entry: &Entry, what: Use, name: &str, body: &[u8]) -> Result<Reply, Error> {
    match what {
        Use::Read => keys::read(entry, name),
        Use::Create => keys::create(state, entry, name, body).await,
        Use::Configure => keys::configure(state, entry, name, body).await,
        Use::Rotate => keys::rotate(state, entry, name).await,
        Use::Trim => keys::trim(state, entry, name, body).await,
        Use::Delete => keys::delete(state, entry, name).await,
        Use::DataKey(kind) => data_key(entry, kind, name, body),
        Use::Encrypt | Use::Decrypt | Use::Rewrap | Use::Hmac(_) | Use::Verify(_) => {
            let item: Item<'_> = body::parse(body)?;
            check_hash(what, item.algorithm.as_deref())?;
            match &item.batch_input {
                Some(items) => batch::answer(entry, what, name, items, item.partial_failure_response_code).await,
                None => {
                    let asked = Asked::of(what, &item).map_err(bad)?;
                    let answer = asked.of_key(key(entry, name)?)?;
                    let size = answer.size();
                    Ok(reply::data(answer, size))
                }
            }
        }
    }
}

/// Refuses every hash but SHA-256: one HMAC key serves one construction.
fn check_hash(what: Use, named: Option<&str>) -> Result<(), Error> {
    let (Use::Hmac(hash) | Use::Verify(hash)) = what else { return Ok(()) };
    let is_supported = match (hash, named) {
        (Hash::Unsupported, _) => false,
        (Hash::Unnamed, Some(name)) => matches!(name, "" | "sha2-256"),
        _ => true,
    };
    if is_supported { Ok(()) } else { Err(bad("unsupported algorithm: only sha2-256 is supported")) }
}

/// The key that a request uses. Not 404: clients look for this.
fn key<'e>(entry: &'e Entry, name: &str) -> Result<&'e Key, Error> {
    entry.key(name).map(|key| &**key).ok_or_else(|| bad("encryption key not found"))
}

/// What is asked of a key, decoded.
struct Asked<'b> {
    what: What<'b>,
    context: Zeroizing<Vec<u8>>,
    associated: Zeroizing<Vec<u8>>,
    version: i64,
}

enum What<'b> {
    Encrypt(Zeroizing<Vec<u8>>),
    Decrypt(&'b str),
    Rewrap(&'b str),
    Hmac(Zeroizing<Vec<u8>>),
    Verify(Zeroizing<Vec<u8>>, &'b str),
}

impl<'b> Asked<'b> {
    /// Reads an item.
    fn of(what: Use, item: &'b Item<'b>) -> Result<Self, Cow<'static, str>> {
        let optional =
            |text: &Option<Text<'b>>| text.as_ref().map_or_else(|| Ok(Zeroizing::default()), |text| body::decode(text));
        let message = |text: &Option<Text<'b>>, missing: &'static str| match text {
            Some(text) => body::decode(text).map_err(Cow::Owned),
            None => Err(missing.into()),
        };
        let ciphertext = || match item.ciphertext.as_deref() {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err("missing ciphertext to decrypt"),
        };
        let input = || match &item.input {
            Some(text) => {
                body::decode(text).map_err(|error| format!("unable to decode input as base64: {error}").into())
            }
            None => Err(Cow::Borrowed("missing input for HMAC")),
        };
        let asked = match what {
            Use::Encrypt => What::Encrypt(message(&item.plaintext, "missing plaintext to encrypt")?),
            Use::Decrypt => What::Decrypt(ciphertext()?),
            Use::Rewrap => What::Rewrap(ciphertext()?),
            Use::Verify(_) => {
                let hmac = item.hmac.as_deref().filter(|text| !text.is_empty());
                What::Verify(input()?, hmac.ok_or("neither a 'signature' nor an 'hmac' were given to verify")?)
            }
            _ => What::Hmac(input()?),
        };
        // What is bound to a text is not kept by a rewrap, so it cannot open that.
        let associated =
            if matches!(asked, What::Rewrap(_)) { Zeroizing::default() } else { optional(&item.associated_data)? };
        let version = item.key_version.map_or(0, |number| number.0);
        Ok(Self { what: asked, context: optional(&item.context)?, associated, version })
    }

    /// Has a key do it.
    fn of_key(&self, key: &Key) -> Result<Answer, Error> {
        let context = Some(self.context.as_slice());
        let encrypt = |plaintext: &[u8]| {
            let (version, ciphertext) = key.encrypt(self.version, context, &self.associated, plaintext)?;
            Ok(Answer { ciphertext: Some(ciphertext), key_version: Some(version), ..Answer::default() })
        };
        let answer = match &self.what {
            What::Encrypt(plaintext) => encrypt(plaintext),
            What::Rewrap(ciphertext) => key.decrypt(ciphertext, context, b"").and_then(|plaintext| encrypt(&plaintext)),
            What::Decrypt(ciphertext) => key
                .decrypt(ciphertext, context, &self.associated)
                .map(|plaintext| Answer { plaintext: Some(base64::encode(&plaintext)), ..Answer::default() }),
            What::Hmac(input) => {
                key.hmac(self.version, input).map(|hmac| Answer { hmac: Some(hmac), ..Answer::default() })
            }
            What::Verify(input, hmac) => {
                key.verify_hmac(hmac, input).map(|valid| Answer { valid: Some(valid), ..Answer::default() })
            }
        };
        answer.map_err(refused)
    }
}

/// The error for a client.
fn refused(refused: Refused) -> Error {
    match refused {
        Refused::NoRandom(error) => {
            Error::new(StatusCode::INTERNAL_SERVER_ERROR, "internal server error").caused_by(error)
        }
        refused @ Refused::Retired => Error::new(StatusCode::SERVICE_UNAVAILABLE, refused.to_string()),
        refused => bad(refused.to_string()),
    }
}

/// Makes a data key: random bytes, encrypted, and where that is asked for in plain.
fn data_key(entry: &Entry, kind: DataKey, name: &str, body: &[u8]) -> Result<Reply, Error> {
    let item: Item<'_> = body::parse(body)?;
    if kind == DataKey::Invalid {
        return Err(bad("Invalid path, must be 'plaintext' or 'wrapped'"));
    }
    let len = match item.bits.map_or(256, |bits| bits.0) {
        128 => 16,
        256 => 32,
        512 => 64,
        _ => return Err(bad("invalid bit length")),
    };
    let decode = |text: &Option<Text<'_>>, failed: &'static str| {
        text.as_ref().map_or_else(|| Ok(Zeroizing::default()), |text| body::decode(text).map_err(|_| bad(failed)))
    };
    let context = decode(&item.context, "failed to base64-decode context")?;
    let associated = decode(&item.associated_data, "failed to base64-decode associated_data")?;
    let version = item.key_version.map_or(0, |number| number.0);
    let mut plaintext = Zeroizing::new(vec![0; len]);
    random::fill(&mut plaintext).map_err(|error| refused(error.into()))?;
    let encrypted = key(entry, name)?.encrypt(version, Some(&context), &associated, &plaintext);
    let (version, ciphertext) = encrypted.map_err(refused)?;
    let plaintext = (kind == DataKey::Plaintext).then(|| base64::encode(&plaintext));
    let answer = Answer { ciphertext: Some(ciphertext), plaintext, key_version: Some(version), ..Answer::default() };
    let size = answer.size();
    Ok(reply::data(answer, size))
}

/// The error of one item of a batch.
fn of_item(error: &Error) -> Outcome {
    Outcome::Failed(error.message().to_owned())
}
