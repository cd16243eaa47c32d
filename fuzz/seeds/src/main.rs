//! Writes the fuzzers' seeds, made of `testdata`, below the directory that is named.

#[path = "../../src/keys.rs"]
mod keys;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

fn main() {
    let to = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds DIRECTORY"));
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let seeds = |fuzzer: &str| Seeds::new(to.join(fuzzer));
    stored_keys(&testdata, seeds("stored_key"));
    sealed_values(&testdata, seeds("sealed_value"));
    ciphertexts(&testdata, seeds("ciphertext"));
    recorded(&testdata, seeds("request_body"), "body");
    recorded(&testdata, seeds("path"), "path");
    names(&testdata, seeds("name"));
    certificates(&testdata, seeds("certificate"));
    files(&testdata.join("identities"), seeds("pem_and_api_key"));
    files(&testdata.join("config/files"), seeds("config"));
    kms_commands(seeds("kms_commands"));
}

struct Seeds {
    directory: PathBuf,
    count: usize,
}

impl Seeds {
    fn new(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).expect("a directory for seeds");
        Self { directory, count: 0 }
    }

    fn add(&mut self, bytes: impl AsRef<[u8]>) {
        // Large inputs only slow a fuzzer down.
        if bytes.as_ref().len() <= 16 * 1_024 {
            std::fs::write(self.directory.join(format!("seed-{:04}", self.count)), bytes).expect("a seed is written");
            self.count += 1;
        }
    }
}

fn stored_keys(testdata: &Path, mut seeds: Seeds) {
    for variant in elements(&read(&testdata.join("stored-keys/variants.json"))) {
        if let Some(text) = variant["value"].as_str() {
            seeds.add(text);
        }
        if let Some(bytes) = bytes(&variant["value_b64"]) {
            seeds.add(bytes);
        }
    }
    files(&testdata.join("stored-keys"), seeds);
}

fn sealed_values(testdata: &Path, mut seeds: Seeds) {
    for vector in elements(&read(&testdata.join("sealed/local.json"))) {
        seeds.add(vector["sealed"].as_str().expect("text"));
    }
}

fn ciphertexts(testdata: &Path, mut seeds: Seeds) {
    for file in paths(&testdata.join("ciphertexts")) {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        for case in elements(&read(&file)) {
            let Some(ciphertext) = bytes(&case["ciphertext"]) else { continue };
            let context = bytes(&case["context"]).unwrap_or_default();
            let Ok(len) = u8::try_from(context.len()) else { continue };
            let number = keys::KEYS.iter().position(|(name, _)| case["key"] == *name).unwrap_or(0);
            seeds.add([&[u8::try_from(number).expect("few keys"), len][..], &context, &ciphertext].concat());
        }
    }
}

/// A part of every recorded request.
fn recorded(testdata: &Path, mut seeds: Seeds, part: &str) {
    for request in requests(testdata) {
        if let Some(text) = request[part].as_str() {
            seeds.add(text);
        }
    }
}

fn names(testdata: &Path, mut seeds: Seeds) {
    for request in requests(testdata) {
        if let Some((_, name)) = request["path"].as_str().and_then(|path| path.rsplit_once('/')) {
            seeds.add(name);
        }
    }
    seeds.add("my.bXkta2V5");
    seeds.add("/v1/key/create/my-app*/v1/key/create/my-app-1");
    seeds.add("1h2m3.5s");
}

/// Every command of the key manager, with a message that has a name only, and with fields beside it.
fn kms_commands(mut seeds: Seeds) {
    let name: &[u8] = b"\x0a\x06my-key";
    let fields: [&[u8]; 4] = [b"", b"\x10\x01", b"\x1a\x03abc\x22\x02{}", b"\x12\x06AES256\x18\x01"];
    for number in [1..=6, 101..=104, 201..=210, 301..=306, 401..=404].into_iter().flatten() {
        for fields in fields {
            let message = [name, fields].concat();
            let len = u32::try_from(message.len()).expect("short");
            seeds.add([&u16::to_be_bytes(number), &len.to_be_bytes()[..], &message].concat());
        }
    }
}

fn certificates(testdata: &Path, mut seeds: Seeds) {
    for file in paths(&testdata.join("identities/certs")) {
        let file = std::fs::read(file).expect("readable");
        seeds.add(percent_encoded(&file));
        for der in String::from_utf8_lossy(&file).split("-----BEGIN CERTIFICATE-----").skip(1).filter_map(der) {
            seeds.add(der);
        }
    }
}

/// What stands up to the end mark, decoded.
fn der(pem: &str) -> Option<Vec<u8>> {
    let text: String = pem.split("-----END").next()?.split_whitespace().collect();
    STANDARD.decode(text).ok()
}

/// As a proxy forwards it.
fn percent_encoded(pem: &[u8]) -> String {
    pem.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every file below a directory.
fn files(directory: &Path, mut seeds: Seeds) {
    for file in paths(directory) {
        seeds.add(std::fs::read(file).expect("readable"));
    }
}

fn requests(testdata: &Path) -> Vec<Value> {
    let files = paths(&testdata.join("http")).into_iter();
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.flat_map(|file| elements(&read(&file))).map(|case| case["request"].clone()).collect()
}

fn paths(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { self::paths(&path) } else { vec![path] }).collect()
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).expect("readable")).expect("JSON")
}

/// The cases of a file: a list, or the lists in an object.
fn elements(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(cases) => cases.clone(),
        Value::Object(parts) => parts.values().flat_map(|part| part.as_array().cloned().unwrap_or_default()).collect(),
        _ => Vec::new(),
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}
