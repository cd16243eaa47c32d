//! A token that this process has logged in to, and the key on it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::{Config, Pin, Token, module};
use crate::foreign::printable;
use crate::text::counted;
use zeroize::Zeroizing;

/// The PINs that were tried. One login at a time, in the whole process: two that try the same wrong PIN would try it twice.
static PINS: Mutex<Pins> = Mutex::new(Pins { refused: BTreeSet::new(), accepted: BTreeSet::new() });

/// PINs, hashed together with their token.
struct Pins {
    /// They are not tried again as long as the process lives: after a few wrong PINs a token locks itself.
    refused: BTreeSet<[u8; 32]>,
    accepted: BTreeSet<[u8; 32]>,
}

/// A connection to a token. Sessions are used by one call at a time and go back to the others.
#[derive(Debug)]
pub(super) struct Connection {
    module: Arc<Pkcs11>,
    slot: Slot,
    key: ObjectHandle,
    /// Sessions that nobody uses. The token forgets the login when the last session is closed, so none is closed here.
    idle: Mutex<Vec<Session>>,
    /// What is dangerous about the key.
    pub(super) warnings: Vec<String>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It may pass by itself: the token is absent, or does not work now.
    Away(String),
    /// It will not.
    Wrong(String),
}

impl Connection {
    /// Finds the token, logs in, and finds the key. It may block.
    pub(super) fn open(config: &Config) -> Result<Self, Refusal> {
        let mut module = module::load(&config.module)?;
        let mut found = find_token(&module, &config.token);
        if matches!(found, Err(Refusal::Away(_))) {
            module = module::renew(&config.module, module)?;
            found = find_token(&module, &config.token);
        }
        let slot = found?;
        let session = module.open_ro_session(slot).map_err(away("no session can be opened"))?;
        log_in(&module, slot, &session, config)?;
        let key = find_key(&session, &config.key)?;
        let warnings = judge_key(&session, key, &config.key)?;
        Ok(Self { module, slot, key, idle: Mutex::new(vec![session]), warnings })
    }

    /// Runs `work` with a session that nobody else uses meanwhile. A session whose call has failed is not used again:
    /// it may still be in the middle of an operation.
    pub(super) fn run<T>(&self, work: impl Fn(&Session, ObjectHandle) -> Result<T, Error>) -> Result<T, Error> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let session = idle().pop();
        let session = session.map_or_else(|| self.module.open_ro_session(self.slot), Ok)?;
        let done = work(&session, self.key);
        let mut idle = idle();
        // The last one keeps the login.
        if done.is_ok() || idle.is_empty() {
            idle.push(session);
        }
        done
    }
}

fn away(what: &'static str) -> impl Fn(Error) -> Refusal {
    move |error| Refusal::Away(format!("{what} ({error})"))
}

fn find_token(module: &Pkcs11, wanted: &Token) -> Result<Slot, Refusal> {
    let slots = module.get_slots_with_token().map_err(away("the module does not say which tokens there are"))?;
    let mut labels = Vec::new();
    let mut found = Vec::new();
    for slot in slots {
        // A token may be pulled between the two calls.
        let Ok(info) = module.get_token_info(slot) else { continue };
        labels.push(format!("'{}' in slot {}", printable(info.label()), slot.id()));
        let is_wanted = match wanted {
            Token::Label(label) => info.label() == label,
            Token::Slot(id) => slot.id() == *id,
        };
        if is_wanted {
            found.push(slot);
        }
    }
    let count = found.len();
    match (found.pop(), count) {
        (Some(slot), 1) => Ok(slot),
        (Some(_), _) => Err(Refusal::Wrong(format!("{count} tokens have this label; write 'slot' instead of 'token'"))),
        (None, _) if labels.is_empty() => {
            Err(Refusal::Away("there is no token at all; plug it in, or start it".into()))
        }
        (None, _) => Err(Refusal::Away(format!(
            "there is no such token; plug it in, or correct 'token' or 'slot'. There is {}",
            labels.join(", ")
        ))),
    }
}

/// Logs in, with every PIN at most once if it is wrong, and never when a wrong one would lock the token.
fn log_in(module: &Pkcs11, slot: Slot, session: &Session, config: &Config) -> Result<(), Refusal> {
    const ADVICE: &str = "correct 'pin', and start again; it was tried once and is not tried again, because wrong PINs \
                          lock a token";
    let wrong = |what: &str| Refusal::Wrong(what.to_owned());
    let mut pins = PINS.lock().unwrap_or_else(PoisonError::into_inner);
    // How many tries are left is asked when nobody else tries.
    let info = module.get_token_info(slot).map_err(away("the token does not say how it is"))?;
    if !info.user_pin_initialized() {
        return Err(wrong("the token has no PIN of a user yet; initialise it with the tool of its vendor"));
    }
    let pin = read(&config.pin)?;
    let hash = hash(&info, &pin);
    if pins.refused.contains(&hash) {
        return Err(Refusal::Wrong(format!("the token has refused this PIN before; {ADVICE}")));
    }
    if info.user_pin_locked() {
        return Err(wrong("the PIN is locked; its security officer must set a new one"));
    }
    if info.user_pin_final_try() {
        return Err(wrong(
            "a wrong PIN would lock the token now, so it was not tried; log in once with the tool of the token's \
             vendor and the right PIN, then start again",
        ));
    }
    match session.login(UserType::User, Some(&pin)) {
        Ok(()) => {
            pins.accepted.insert(hash);
            Ok(())
        }
        // All sessions of a process share one login, which another seal has made.
        Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) if pins.accepted.contains(&hash) => Ok(()),
        Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Err(wrong(
            "this process is logged in to the token with another PIN; write the same 'pin' in all sections that name it",
        )),
        Err(Error::Pkcs11(
            why @ (RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked),
            _,
        )) => {
            pins.refused.insert(hash);
            Err(Refusal::Wrong(format!("the token refuses the PIN ({why}); {ADVICE}")))
        }
        Err(error) => Err(Refusal::Away(format!("the login failed ({error})"))),
    }
}

fn hash(info: &TokenInfo, pin: &SecretString) -> [u8; 32] {
    let token = [info.manufacturer_id(), info.model(), info.serial_number(), info.label()].join("\n");
    let pin = Sha256::digest(pin.expose_secret());
    Sha256::new().chain_update(token).chain_update(pin).finalize().into()
}

fn read(pin: &Pin) -> Result<SecretString, Refusal> {
    let file = match pin {
        Pin::Value(pin) => return Ok(pin.clone()),
        Pin::File(file) => file,
    };
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| Refusal::Wrong(format!("failed to read '{}': {error}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

fn find_key(session: &Session, label: &str) -> Result<ObjectHandle, Refusal> {
    let template = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(label.as_bytes().to_vec())];
    let mut found = session.find_objects(&template).map_err(away("the keys cannot be listed"))?;
    match (found.pop(), found.len()) {
        (Some(key), 0) => Ok(key),
        (None, _) => Err(Refusal::Wrong(
            "there is no secret key with this label; correct 'key', or make one: pkcs11-tool --module … --token-label … \
             --login --keygen --key-type AES:32 --sensitive --private --label …"
                .into(),
        )),
        (Some(_), more) => {
            let all = counted(more + 1, "secret key");
            Err(Refusal::Wrong(format!("the token has {all} with this label; give one of them another label")))
        }
    }
}

/// Refuses keys that cannot seal, and says what is dangerous about those that can.
fn judge_key(session: &Session, key: ObjectHandle, label: &str) -> Result<Vec<String>, Refusal> {
    const WANTED: [AttributeType; 4] =
        [AttributeType::KeyType, AttributeType::ValueLen, AttributeType::Sensitive, AttributeType::Extractable];
    let attributes = session.get_attributes(key, &WANTED).map_err(away("the key cannot be examined"))?;
    let label = printable(label);
    let mut warnings = Vec::new();
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(kind) if kind != KeyType::AES => {
                return Err(Refusal::Wrong("the key is no AES key; make one of AES with 256 bits".into()));
            }
            Attribute::ValueLen(length) if *length < 32 => {
                let bits = *length * 8;
                warnings.push(format!("the key '{label}' has {bits} bits only; make one with 256, and reseal"));
            }
            Attribute::Sensitive(false) => warnings.push(format!(
                "the key '{label}' is not sensitive: who has the PIN can read it from the token; make one that is \
                 (CKA_SENSITIVE), and reseal"
            )),
            Attribute::Extractable(true) => warnings.push(format!(
                "the key '{label}' is extractable: who has the PIN can copy it off the token; make one that is not \
                 (CKA_EXTRACTABLE), and reseal"
            )),
            _ => {}
        }
    }
    Ok(warnings)
}
