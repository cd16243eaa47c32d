use serde::Deserialize;

use super::*;

const VERSIONS: [&str; 13] = [
    "v0.10.1",
    "v0.11.0",
    "v0.13.6",
    "v0.17.6",
    "v0.18.0",
    "v0.19.4",
    "v0.20.0",
    "v0.22.3",
    "2023-05-02T22-48-10Z",
    "2024-01-11T13-09-29Z",
    "2024-02-29T08-12-28Z",
    "2024-03-28T12-56-37Z",
    "HEAD",
];

#[derive(Deserialize)]
struct Case {
    id: String,
    key: String,
    #[serde(default)]
    context: Base64,
    plaintext: Base64,
    ciphertext: Base64,
    head_decrypts: bool,
}

impl Case {
    fn assert_decrypts(&self, keys: &HashMap<String, Key>) {
        let plaintext = keys[&self.key].decrypt(&self.ciphertext.0, &self.context.0);
        assert_eq!(plaintext.expect(&self.id).as_slice(), self.plaintext.0, "{}", self.id);
    }
}

fn by_version() -> Vec<Case> {
    VERSIONS.iter().flat_map(|version| read_json::<Vec<Case>>(&format!("ciphertexts/{version}.json"))).collect()
}

#[test]
fn every_ciphertext_decrypts() {
    let (keys, cases) = (keys(), by_version());
    assert_eq!(cases.len(), 341);
    // Not only what the last archived server can still read.
    assert_eq!(cases.iter().filter(|case| !case.head_decrypts).count(), 70);
    cases.iter().for_each(|case| case.assert_decrypts(&keys));
}

#[test]
fn keys_of_one_version_read_ciphertexts_of_another() {
    #[derive(Deserialize)]
    struct CrossVersion {
        cases: Vec<Case>,
    }
    let (keys, CrossVersion { cases }) = (keys(), read_json("ciphertexts/cross-version.json"));
    assert_eq!(cases.len(), 18);
    cases.iter().for_each(|case| case.assert_decrypts(&keys));
}

#[test]
fn a_ciphertext_that_begins_like_an_old_one_decrypts() {
    let (keys, cases) = (keys(), read_json::<Vec<Case>>("ciphertexts/first-byte.json"));
    assert_eq!(cases.len(), 24);
    cases.iter().for_each(|case| case.assert_decrypts(&keys));
}

#[test]
fn old_formats_in_unusual_forms_are_read_as_the_archived_server_reads_them() {
    let (keys, cases) = (keys(), read_json::<Vec<Case>>("ciphertexts/variants.json"));
    assert_eq!(cases.len(), 61);
    for case in cases {
        if case.head_decrypts {
            case.assert_decrypts(&keys);
        } else {
            assert!(keys[&case.key].decrypt(&case.ciphertext.0, &case.context.0).is_err(), "{}", case.id);
        }
    }
}

#[test]
fn a_large_ciphertext_decrypts() {
    let plaintext = keys()["head-create"].decrypt(&read("ciphertexts/large.bin"), b"large").expect("authentic");
    assert_eq!(plaintext.len(), 740_000);
    assert!(plaintext.iter().zip((0..251u8).cycle()).all(|(byte, expected)| *byte == expected));
}

#[derive(Deserialize)]
struct Negative {
    base: String,
    #[serde(flatten)]
    change: Change,
    status: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Change {
    Flip { bit: usize },
    Truncate { keep: usize },
    DropFirst { n: usize },
    Append { hex: String },
    Prepend { hex: String },
    Context { context: Base64 },
}

impl std::fmt::Debug for Base64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Change {
    fn apply(&self, case: &Case) -> (Vec<u8>, Vec<u8>) {
        let (mut ciphertext, mut context) = (case.ciphertext.0.clone(), case.context.0.clone());
        match self {
            Self::Flip { bit } => ciphertext[bit >> 3] ^= 0x80 >> (bit & 7),
            Self::Truncate { keep } => ciphertext.truncate(*keep),
            Self::DropFirst { n } => drop(ciphertext.drain(..n)),
            Self::Append { hex: bytes } => ciphertext.extend(hex(bytes)),
            Self::Prepend { hex: bytes } => drop(ciphertext.splice(..0, hex(bytes))),
            Self::Context { context: other } => context.clone_from(&other.0),
        }
        (ciphertext, context)
    }
}

/// Where no tag covers the change (an id, letter case, white space) both answers are fine, but no
/// change ever gives another plaintext.
#[test]
fn a_changed_ciphertext_is_not_authentic() {
    #[derive(Deserialize)]
    struct Negatives {
        cases: Vec<Negative>,
    }
    let (keys, bases, Negatives { cases }) = (keys(), by_version(), read_json("ciphertexts/negative.json"));
    let bases: HashMap<&str, &Case> = bases.iter().map(|case| (case.id.as_str(), case)).collect();
    assert_eq!(cases.len(), 2864);
    for Negative { base, change, status } in cases {
        let case = bases[base.as_str()];
        let (ciphertext, context) = change.apply(case);
        match keys[&case.key].decrypt(&ciphertext, &context) {
            Err(_) => {}
            Ok(plaintext) => {
                assert_eq!(status, Some(200), "{base}: {change:?} was accepted");
                assert_eq!(plaintext.as_slice(), case.plaintext.0, "{base}: {change:?}");
            }
        }
    }
}
