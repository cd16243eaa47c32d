//! What each fuzzer does with its input: reject it, or hold on to a promise about it. Never panic.

mod keys;

use std::path::Path as FilePath;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger::api::wire::{DecryptRequest, EncryptRequest, GenerateRequest, HmacRequest, ImportRequest};
use claviger::auth::api_key::ApiKey;
use claviger::auth::certificate::Certificate;
use claviger::auth::policy::Policy;
use claviger::auth::{Identity, peer};
use claviger::crypto::json::first_object;
use claviger::crypto::{Blob, Key, pem};
use claviger::keystore::{Seal, seal};
use claviger::kms;
use claviger::name::{KeyName, Pattern, PolicyName};
use claviger::server::path::Path;
use claviger::server::proxy::Form;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use secrecy::SecretString;

use self::keys::KEYS;

/// A stored key: what is read is written again and read as the same.
pub fn stored_key(bytes: &[u8]) {
    let Ok(key) = Key::parse(&Blob::from(bytes.to_vec())) else { return };
    let again = Key::parse(&key.encode()).expect("what we write, we read");
    assert!(key.is_same(&again));
    assert_eq!(key.algorithm(), again.algorithm());
    assert_eq!(key.created_at(), again.created_at());
    assert_eq!(key.created_by(), again.created_by());
    assert_eq!(key.has_hmac(), again.has_hmac());
}

/// A ciphertext: the number of a key, the length of the context, the context, the ciphertext. What
/// decrypts, encrypts and decrypts to the same again; and the ciphertext's bytes do as a plaintext.
pub fn ciphertext(bytes: &[u8]) {
    let [number, len, rest @ ..] = bytes else { return };
    let (context, ciphertext) = rest.split_at(usize::from(*len).min(rest.len()));
    let key = KEYS[usize::from(*number) % KEYS.len()].1;
    let key = Key::parse(&Blob::from(key.to_vec())).expect("a key of the archived server");
    let decrypted = key.decrypt(ciphertext, context);
    for plaintext in decrypted.iter().map(|plaintext| &plaintext[..]).chain([ciphertext]) {
        let sealed = key.encrypt(plaintext, context).expect("random bytes");
        let opened = key.decrypt(&sealed, context).expect("what we encrypt, we decrypt");
        assert_eq!(*opened, plaintext);
        let mut other = context.to_vec();
        other.push(0);
        assert!(key.decrypt(&sealed, &other).is_err(), "the context is bound");
    }
}

/// The values of `testdata/sealed`, and who opens each.
static SEALED: LazyLock<Vec<(Seal, KeyName, Blob)>> = LazyLock::new(|| {
    let vectors: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../testdata/sealed/local.json")).expect("JSON");
    let vector = |vector: &serde_json::Value| {
        let text = |field: &str| vector[field].as_str().expect("text");
        let config = serde_json::json!({ "local": { "key": text("seal_key") } });
        let config: seal::Config = serde_json::from_value(config).expect("a section");
        let seal = now(Seal::connect(Some(&config))).expect("a local key");
        (seal, KeyName::parse(text("name")).expect("a name"), Blob::from(text("value").as_bytes().to_vec()))
    };
    vectors.iter().map(vector).collect()
});

/// What lies in a key store with a seal: it opens under its own name only, and to nothing but what was sealed.
pub fn sealed_value(bytes: &[u8]) {
    let _ = Seal::label(&Blob::from(bytes.to_vec()));
    for (number, (seal, ..)) in SEALED.iter().enumerate() {
        for (owner, (_, name, value)) in SEALED.iter().enumerate() {
            if let Ok(opened) = now(seal.open(name, Blob::from(bytes.to_vec()))) {
                assert!(number == owner && opened.is_same(value));
            }
        }
    }
}

/// What needs nobody's answer is done at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("a local key waits for nobody"),
    }
}

/// A request body, as every request that there is: its fields, written as clients write them, read as the same.
pub fn request_body(bytes: &[u8]) {
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    if let Ok(request) = first_object::<DecryptRequest>(bytes) {
        let text = serde_json::json!({ "ciphertext": base64(&request.ciphertext), "context": base64(&request.context),
            "version": request.version });
        let again: DecryptRequest = first_object(text.to_string().as_bytes()).expect("a client's JSON");
        assert_eq!(*again.ciphertext, *request.ciphertext);
        assert_eq!(*again.context, *request.context);
        assert_eq!(again.version, request.version);
    }
    if let Ok(request) = first_object::<ImportRequest>(bytes) {
        let text = serde_json::json!({ "KEY": base64(&request.key), "Cipher": request.cipher });
        let again: ImportRequest = first_object(text.to_string().as_bytes()).expect("a client's JSON");
        assert_eq!(*again.key, *request.key);
        assert_eq!(again.cipher, request.cipher);
    }
    let _ = first_object::<EncryptRequest>(bytes);
    let _ = first_object::<GenerateRequest>(bytes);
    let _ = first_object::<HmacRequest>(bytes);
}

/// The body of a request to the key manager: its commands are those of its frames, each is one alone, too, and twice as
/// many are as good.
pub fn kms_commands(bytes: &[u8]) {
    let Ok(actions) = kms::actions(bytes) else { return };
    let mut again = Vec::new();
    for (frame, action) in kms::wire::frames(bytes).zip(&actions) {
        let frame = frame.expect("it was parsed");
        assert_eq!(frame.command, action.number());
        let mut alone = Vec::new();
        kms::wire::append(frame.command, frame.message, &mut alone);
        assert_eq!(kms::actions(&alone).expect("a request"), [*action]);
        again.append(&mut alone);
    }
    assert_eq!(again, bytes);
    // Twice as much may be too much.
    let may_be_too_much = actions.len() > 500 || actions.contains(&kms::Action::KeyExport);
    let twice = kms::actions(&[bytes, bytes].concat()).ok();
    assert!(twice.map_or(may_be_too_much, |twice| twice == [&*actions, &*actions].concat()));
}

/// A request path: what is decoded, encoded and decoded again is the same, and no prefix of a route is made of
/// encoded slashes.
pub fn path(bytes: &[u8]) {
    let Ok(raw) = std::str::from_utf8(bytes) else { return };
    let Ok(path) = Path::parse(raw) else { return };
    let segments =
        path.as_str().split('/').map(|segment| percent_encode(segment.as_bytes(), NON_ALPHANUMERIC).to_string());
    let encoded = segments.collect::<Vec<_>>().join("/");
    if let Ok(again) = Path::parse(&encoded) {
        assert_eq!(again.as_str(), path.as_str());
    } else {
        // Slashes that came encoded, side by side, cannot be written plainly.
        assert!(path.as_str().contains("//"), "{encoded}");
    }
    for prefix in ["/v1/key/create/", "/v1/key/list/"] {
        if let Some(name) = path.after(prefix) {
            assert_eq!(path.as_str(), format!("{prefix}{name}"));
            assert_eq!(raw.matches('/').take(3).count(), 3, "slashes of a route are written as such");
        }
    }
}

/// Names, patterns and policies: what is taken is shown as it was, and a page's token continues its listing.
pub fn name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let key = KeyName::parse(text);
    if let Ok(name) = &key {
        assert_eq!(name.as_str(), text);
        assert!(PolicyName::parse(text).is_ok() && Identity::parse(text).is_ok() && Pattern::parse(text).is_ok());
    }
    if let Ok(pattern) = Pattern::parse(text) {
        assert!(text.starts_with(pattern.prefix()));
        if let Some(after) = pattern.after() {
            let again = Pattern::parse(&pattern.continue_at(after)).expect("our own token");
            assert_eq!(again, pattern);
        }
    }
    let _ = claviger::duration::parse(text);
    // The first half as the pattern of a policy, the second as a path.
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (rule, path) = text.split_at(middle);
    let name = || PolicyName::parse("p").expect("valid");
    let expected = match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => !rule.is_empty() && path == rule,
    };
    let all = || vec!["*".to_owned()];
    assert_eq!(Policy::new(name(), vec![rule.to_owned()], Vec::new()).allows(path), expected);
    assert_eq!(Policy::new(name(), all(), vec![rule.to_owned()]).allows(path), !expected);
}

/// A certificate, as DER and as a proxy's header: the identity is the same either way.
pub fn certificate(bytes: &[u8]) {
    for form in Form::ALL {
        if let Some(chain) = form.parse(bytes) {
            assert!(!chain.is_empty());
        }
    }
    let _ = peer::identify([bytes, bytes]);
    let identity = peer::identify([bytes]);
    let Ok(certificate) = Certificate::parse(bytes) else {
        assert!(identity.is_err());
        return;
    };
    let _ = (certificate.has_san(), certificate.not_after(), certificate.public_key());
    assert_eq!(identity.is_err(), certificate.is_ca());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(bytes));
    let header = percent_encode(pem.as_bytes(), NON_ALPHANUMERIC).to_string();
    let base64 = STANDARD.encode(bytes);
    for (form, value) in [
        (Form::Pem, header.clone()),
        (Form::Base64, base64.clone()),
        (Form::Xfcc, format!("Cert=\"{header}\"")),
        (Form::Rfc9440, format!(":{base64}:")),
    ] {
        let chain = form.parse(value.as_bytes()).expect("one of this form");
        assert_eq!(chain.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(), [bytes]);
    }
}

/// PEM files and API keys.
pub fn pem_and_api_key(bytes: &[u8]) {
    let _ = pem::certificates(bytes);
    for password in [None, Some(SecretString::from("password"))] {
        let _ = pem::private_key(bytes, password.as_ref());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(key) = ApiKey::parse(text) else { return };
    let again = ApiKey::parse(&key.expose()).expect("our own text");
    assert_eq!(again.identity(), key.identity());
}

/// A config file.
pub fn config(bytes: &[u8], file: &FilePath) {
    std::fs::write(file, bytes).expect("a file in memory");
    let _ = claviger::config::Config::load(file);
}
