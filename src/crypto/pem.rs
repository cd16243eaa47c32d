//! PEM files: certificates and private keys, encrypted ones too.

mod rfc1423;

use ::pem::{EncodeConfig, LineEnding, Pem};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::random::{self, NoRandom};
use crate::hex;

/// The tag of a PKCS#8 block.
const PKCS8: &str = "PRIVATE KEY";

/// Why a PEM file cannot be used. It quotes nothing of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A PEM block that is cut off or no base64.
    #[error("malformed PEM")]
    Malformed,
    /// The file has no certificate in it.
    #[error("no certificate in it; expected a block 'BEGIN CERTIFICATE'")]
    NoCertificate,
    /// The file has no private key in it.
    #[error(
        "no private key in it; expected a block 'BEGIN PRIVATE KEY', 'BEGIN EC PRIVATE KEY' or 'BEGIN RSA PRIVATE KEY'"
    )]
    NoKey,
    /// An encrypted key, and no password.
    #[error("the private key is encrypted and needs a password")]
    PasswordNeeded,
    /// The key does not decrypt.
    #[error("the password of the private key is wrong")]
    WrongPassword,
    /// Encrypted in a way that we do not know.
    #[error(
        "the private key is encrypted in a way that is not supported ({0}); \
         convert it with 'openssl pkcs8 -topk8 -v2 aes-256-cbc'"
    )]
    Cipher(String),
}

/// All certificates of a PEM file, in order; other blocks and text between them are skipped.
pub fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file).collect();
    match certificates {
        Err(_) => Err(Error::Malformed),
        Ok(certificates) if certificates.is_empty() => Err(Error::NoCertificate),
        Ok(certificates) => Ok(certificates),
    }
}

/// The first private key of a PEM file: PKCS#8, PKCS#1 or SEC1, decrypted with `password` where it is
/// encrypted as RFC 1423 says or as PKCS#8.
pub fn private_key(file: &[u8], password: Option<&SecretString>) -> Result<PrivateKeyDer<'static>, Error> {
    let password = password.map(SecretString::expose_secret).filter(|password| !password.is_empty());
    let blocks = ::pem::parse_many(file).map_err(|_| Error::Malformed)?;
    let block = blocks.into_iter().find(|block| block.tag().ends_with("PRIVATE KEY")).ok_or(Error::NoKey)?;
    let tag = block.tag().to_owned();
    let encryption = block.headers().get("DEK-Info").map(str::to_owned);
    let contents = Zeroizing::new(Pem::into_contents(block));
    let mut der = match encryption {
        Some(encryption) => {
            rfc1423::decrypt(&contents, &encryption, password.ok_or(Error::PasswordNeeded)?.as_bytes())?
        }
        None if tag == "ENCRYPTED PRIVATE KEY" => decrypt_pkcs8(&contents, password.ok_or(Error::PasswordNeeded)?)?,
        None => contents,
    };
    let der = std::mem::take(&mut *der);
    Ok(match tag.as_str() {
        "RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(der).into(),
        "EC PRIVATE KEY" => PrivateSec1KeyDer::from(der).into(),
        _ => PrivatePkcs8KeyDer::from(der).into(),
    })
}

/// A PKCS#8 private key as a PEM file.
pub fn pkcs8(der: &[u8]) -> Zeroizing<String> {
    encode(Pem::new(PKCS8, der))
}

/// The same, encrypted as RFC 1423 says: the archived server and its tools read that, and not encrypted PKCS#8.
pub fn encrypted_pkcs8(der: &[u8], password: &SecretString) -> Result<Zeroizing<String>, NoRandom> {
    let mut iv = [0; 16];
    random::fill(&mut iv)?;
    let mut pem = Pem::new(PKCS8, rfc1423::encrypt(der, &iv, password.expose_secret().as_bytes()));
    let iv = hex::encode(&iv);
    pem.headers_mut().add("Proc-Type", "4,ENCRYPTED").expect("it has no colon");
    pem.headers_mut().add("DEK-Info", &format!("{},{iv}", rfc1423::CIPHER)).expect("it has no colon");
    Ok(encode(pem))
}

fn encode(pem: Pem) -> Zeroizing<String> {
    let text = Zeroizing::new(::pem::encode_config(&pem, EncodeConfig::new().set_line_ending(LineEnding::LF)));
    drop(Zeroizing::new(pem.into_contents()));
    text
}

fn decrypt_pkcs8(der: &[u8], password: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    // The library knows no other schemes and does not tell them from garbage.
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| Error::Cipher("no PBES2 scheme".into()))?;
    if is_too_costly(&encrypted.encryption_algorithm) {
        return Err(Error::Cipher("its password takes too much work".into()));
    }
    match encrypted.decrypt(password) {
        Ok(document) => Ok(document.to_bytes()),
        Err(pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::UnsupportedAlgorithm { oid })) => {
            Err(Error::Cipher(oid.to_string()))
        }
        Err(_) => Err(Error::WrongPassword),
    }
}

/// Whether to make a key of the password takes more than some seconds, or more than 256 MiB. The file says how
/// much work that is, and one that asks for hours is not to stop a server that reads it again. OpenSSL asks for a
/// hundredth of these limits.
fn is_too_costly(scheme: &EncryptionScheme) -> bool {
    let EncryptionScheme::Pbes2(parameters) = scheme else { return false };
    match &parameters.kdf {
        Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count > 10_000_000,
        Kdf::Scrypt(scrypt) => {
            let memory = scrypt.cost_parameter.saturating_mul(scrypt.block_size.into());
            memory > 1 << 21 || memory.saturating_mul(scrypt.parallelization.into()) > 1 << 22
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Cases {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        key: String,
        certificate: String,
        password: String,
    }

    fn read(path: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/identities").join(path);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn cases() -> Vec<Case> {
        let Cases { cases } = serde_json::from_slice(&read("encrypted-keys.json")).expect("the manifest");
        assert_eq!(cases.len(), 16);
        cases
    }

    fn is_encrypted(case: &Case) -> bool {
        !case.name.starts_with("plain-")
    }

    #[test]
    fn encrypted_keys_belong_to_their_certificates() {
        for case in cases() {
            let key = private_key(&read(&case.key), Some(&case.password.clone().into()));
            if case.name == "pkcs8-pbes1" {
                assert!(matches!(key, Err(Error::Cipher(_))), "{}: {key:?}", case.name);
                continue;
            }
            let key = rcgen::KeyPair::try_from(&key.expect(&case.name)).expect(&case.name);
            let certificate = &certificates(&read(&case.certificate)).expect(&case.name)[0];
            let certificate = crate::auth::certificate::Certificate::parse(certificate).expect(&case.name);
            assert_eq!(
                rcgen::PublicKeyData::subject_public_key_info(&key),
                certificate.public_key_info(),
                "{}",
                case.name
            );
        }
    }

    #[test]
    fn a_wrong_or_missing_password_is_said_to_be_so() {
        for case in cases().iter().filter(|case| is_encrypted(case) && case.name != "pkcs8-pbes1") {
            let file = read(&case.key);
            for none in [None, Some(&SecretString::default())] {
                assert_eq!(private_key(&file, none).err(), Some(Error::PasswordNeeded), "{}", case.name);
            }
            assert_eq!(private_key(&file, Some(&"wrong".into())).err(), Some(Error::WrongPassword), "{}", case.name);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key").serialize_der();
        let plain = pkcs8(&key);
        assert_eq!(private_key(plain.as_bytes(), None).expect("plain").secret_der(), key);
        let password = SecretString::from("correct horse");
        let encrypted = encrypted_pkcs8(&key, &password).expect("random bytes");
        assert!(encrypted.starts_with("-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,"));
        assert_eq!(private_key(encrypted.as_bytes(), Some(&password)).expect("decrypted").secret_der(), key);
        assert_eq!(private_key(encrypted.as_bytes(), Some(&"wrong".into())).err(), Some(Error::WrongPassword));
    }

    #[test]
    fn what_is_no_pem_is_refused() {
        assert_eq!(certificates(b""), Err(Error::NoCertificate));
        assert_eq!(certificates(b"hello"), Err(Error::NoCertificate));
        assert_eq!(private_key(b"hello", None).err(), Some(Error::NoKey));
        for file in ["text-then-cert.pem", "cert-with-crlf.pem", "key-and-cert.pem", "ecparams-key-cert.pem"] {
            assert_eq!(certificates(&read(&format!("certs/{file}"))).expect(file).len(), 1, "{file}");
        }
    }

    #[test]
    fn a_key_that_asks_for_too_much_work_is_refused() {
        // Found by the fuzzer: scrypt with N = 2^14, r = 40, p = 33, of which OpenSSL makes r = 8, p = 1.
        let costly = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHkME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAiRWu0ULZZS6wICQAAC
ASgCASEwHQYJYIZIAWUDBAEqBBBG/zONnIsxnDcInGe2vol4BIGQqrCcZEpuVmng
hCvsd18Gzz9P7vVb1CpMFshccSEyIY/Rf3x4Bl2BK6ekbLeJkbAPuFqN2UMqD3FZ
Nw2XPNdCCy1025jIKC1kRayihe42pVY34G+X5mzv5TABK4LaHMP36Ds4A5EXxzxP
Q4PxfA6iL3qn0CkWe4nVGN6RkfmECn+2Xk9Wlwl1czg0OpbueaTQ
-----END ENCRYPTED PRIVATE KEY-----
";
        let refused = private_key(costly.as_bytes(), Some(&SecretString::from("password")));
        assert_eq!(refused.expect_err("refused"), Error::Cipher("its password takes too much work".into()));
    }
}
