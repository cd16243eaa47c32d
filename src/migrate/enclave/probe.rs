//! Proves that an enclave has a key: the enclave decrypts what the key encrypts, and the key decrypts what the enclave
//! encrypts.

use hyper::StatusCode;

use super::{Enclave, Refused, explain};
use crate::client;
use crate::crypto::{Key, SecretKey};
use crate::keystore::Error;
use crate::kms::wire::{
    DecryptRequest, DecryptResponse, GenerateKeyRequest, GenerateKeyResponse, MacRequest, MacResponse,
};
use crate::kms::{Action, Refusal};
use crate::migrate::material::Material;
use crate::migrate::target::Witness;
use crate::name::KeyName;

/// The associated data of the probes. No object uses it.
const CONTEXT: &[u8] = b"claviger migrate: proof of a key";

/// A version of a key that is being proven.
struct Probe {
    /// The index of its key in the list.
    at: usize,
    name: String,
    /// The version to test; 0: any that fits.
    number: u32,
    /// The version that the enclave must encrypt with.
    encrypts: u32,
    key: Key,
    message: SecretKey,
}

/// The result of probing a key.
#[derive(Debug)]
pub(super) struct Probed {
    /// Whether the enclave has it as it is.
    pub(super) is_same: bool,
    /// The number of the latest version there.
    pub(super) latest: u32,
    /// What the key that is there has encrypted.
    pub(super) witness: Option<Witness>,
}

type Answer = Result<Probed, Error>;

impl Enclave {
    /// Whether the enclave has each of these keys, as they are; an answer for each, in their order.
    pub(super) async fn probe(&self, keys: &[(&KeyName, &Material)]) -> Vec<Answer> {
        let mut answers: Vec<Answer> =
            keys.iter().map(|_| Ok(Probed { is_same: true, latest: 0, witness: None })).collect();
        let mut probes = Vec::with_capacity(keys.len());
        for (at, (name, key)) in keys.iter().enumerate() {
            match self.probes(at, name, key) {
                Ok(more) => probes.extend(more),
                Err(error) => answers[at] = Err(error),
            }
        }
        let probes = self.encrypts(probes, &mut answers).await;
        let probes = self.decrypts(probes, &mut answers).await;
        self.signs(probes, &mut answers).await;
        answers
    }

    /// Whether the key is still the one that has encrypted this.
    pub(super) async fn decrypts_witness(&self, name: &KeyName, witness: &Witness) -> Result<bool, Error> {
        let request = DecryptRequest {
            name: name.to_string(),
            version: 0,
            ciphertext: witness.ciphertext.clone(),
            associated_data: CONTEXT.to_vec(),
        };
        match self.ask::<DecryptResponse>(Action::KeyDecrypt, &[request]).await? {
            Ok(replies) => Ok(replies.iter().all(|reply| reply.plaintext == *witness.plaintext)),
            Err(refused) if refused.status() == Some(StatusCode::BAD_REQUEST) => Ok(false),
            Err(refused) => Err(explain(refused)),
        }
    }

    /// The number of the latest version of a key.
    pub(super) async fn latest(&self, name: &KeyName) -> Result<u32, Error> {
        let request = GenerateKeyRequest { name: name.to_string(), ..GenerateKeyRequest::default() };
        let made: GenerateKeyResponse = self.ask_one(Action::KeyGenerate, &request).await?;
        Ok(made.version)
    }

    fn probes(&self, at: usize, name: &KeyName, key: &Material) -> Result<Vec<Probe>, Error> {
        let failed = |error: crate::crypto::NoRandom| Error::Failed(error.into());
        // A version without a number is the only one, and a server that takes no whole keys gives it a number of its own.
        let numbered = self.takes_whole_keys();
        let last = key.versions.len() - 1;
        let mut probes = Vec::with_capacity(key.versions.len() + 1);
        for (nth, version) in key.versions.iter().enumerate() {
            let number = if numbered { version.number } else { 0 };
            // The latest is asked without its number: it has to be the latest there, too.
            for number in if nth == last && number != 0 { vec![0, number] } else { vec![number] } {
                let key = version.key().map_err(|error| Error::Failed(error.into()))?;
                let message = SecretKey::random().map_err(failed)?;
                let encrypts = if numbered { version.number } else { 0 };
                probes.push(Probe { at, name: name.to_string(), number, encrypts, key, message });
            }
        }
        Ok(probes)
    }

    /// Lets the enclave encrypt, and decrypts that.
    async fn encrypts(&self, probes: Vec<Probe>, answers: &mut [Answer]) -> Vec<Probe> {
        let request = |probe: &Probe| GenerateKeyRequest {
            name: probe.name.clone(),
            version: probe.number,
            associated_data: CONTEXT.to_vec(),
            length: 0,
        };
        let requests: Vec<_> = probes.iter().map(request).collect();
        let replies = self.ask_each::<GenerateKeyResponse>(Action::KeyGenerate, &requests).await;
        for (probe, reply) in probes.iter().zip(&replies) {
            if let (0, Ok(reply), Ok(answer)) = (probe.number, reply, &mut answers[probe.at]) {
                answer.latest = reply.version;
                let plaintext = reply.plaintext.clone().into();
                answer.witness = Some(Witness { ciphertext: reply.ciphertext.clone(), plaintext });
            }
        }
        sift(probes, replies, answers, |probe, reply| {
            let opened = probe.key.decrypt(&reply.ciphertext, CONTEXT);
            let is_version = probe.encrypts == 0 || probe.encrypts == reply.version;
            is_version && opened.is_ok_and(|opened| *opened == reply.plaintext && !opened.is_empty())
        })
    }

    /// Encrypts, and lets the enclave decrypt that.
    async fn decrypts(&self, probes: Vec<Probe>, answers: &mut [Answer]) -> Vec<Probe> {
        let mut requests = Vec::with_capacity(probes.len());
        for probe in &probes {
            match probe.key.encrypt(probe.message.expose(), CONTEXT) {
                Ok(ciphertext) => requests.push(DecryptRequest {
                    name: probe.name.clone(),
                    version: probe.number,
                    ciphertext,
                    associated_data: CONTEXT.to_vec(),
                }),
                Err(error) => {
                    let error = error.to_string();
                    answers.iter_mut().for_each(|answer| *answer = Err(Error::Failed(error.clone().into())));
                    return Vec::new();
                }
            }
        }
        let replies = self.ask_each::<DecryptResponse>(Action::KeyDecrypt, &requests).await;
        sift(probes, replies, answers, |probe, reply| reply.plaintext == probe.message.expose())
    }

    /// Compares HMACs, where the server can have the HMAC key.
    async fn signs(&self, probes: Vec<Probe>, answers: &mut [Answer]) {
        if !self.takes_whole_keys() {
            return;
        }
        let probes: Vec<_> = probes.into_iter().filter(|probe| probe.key.has_hmac()).collect();
        let request = |probe: &Probe| MacRequest {
            name: probe.name.clone(),
            version: probe.number,
            message: probe.message.expose().to_vec(),
        };
        let requests: Vec<_> = probes.iter().map(request).collect();
        let replies = self.ask_each::<MacResponse>(Action::KeyMac, &requests).await;
        sift(probes, replies, answers, |probe, reply| {
            probe.key.hmac(probe.message.expose()).is_some_and(|mac| reply.mac == mac)
        });
    }
}

/// Notes what replies say, and keeps the probes that have passed so far.
fn sift<M>(
    probes: Vec<Probe>,
    replies: Vec<Result<M, Refused>>,
    answers: &mut [Answer],
    passes: impl Fn(&Probe, &M) -> bool,
) -> Vec<Probe> {
    let mut kept = Vec::with_capacity(probes.len());
    for (probe, reply) in probes.into_iter().zip(replies) {
        let answer = match reply {
            Ok(reply) => Ok(passes(&probe, &reply)),
            Err(Refused::Refused(refused)) if shows_another_key(&refused, &probe) => Ok(false),
            Err(refused) => Err(refused.into()),
        };
        match answer {
            Ok(true) if answers[probe.at].as_ref().is_ok_and(|answer| answer.is_same) => kept.push(probe),
            Ok(true) => {}
            Ok(false) => {
                if let Ok(answer) = &mut answers[probe.at] {
                    answer.is_same = false;
                }
            }
            Err(error) => answers[probe.at] = Err(error),
        }
    }
    kept
}

/// Whether a refusal says that the key is another one: it does not decrypt, has no such version, makes no HMACs.
fn shows_another_key(refused: &client::Error, probe: &Probe) -> bool {
    match refused.refusal() {
        Some(Refusal::InvalidCiphertext | Refusal::NoHmac) => true,
        Some(Refusal::NoKey) => probe.number != 0,
        _ => false,
    }
}
