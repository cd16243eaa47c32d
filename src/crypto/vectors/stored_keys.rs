use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::crypto::Algorithm;
use crate::crypto::key::Error;

#[derive(Deserialize)]
struct Variants {
    key: String,
    hmac_key: String,
    cases: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    name: String,
    /// What the archived server answered; none where it crashed.
    status: Option<u16>,
    body: Option<Described>,
    hmac_status: Option<u16>,
    #[serde(default)]
    value: String,
    #[serde(default)]
    value_b64: Base64,
}

#[derive(Deserialize)]
struct Described {
    algorithm: Option<String>,
    created_at: Option<String>,
    created_by: Option<String>,
}

fn time(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).expect(text)
}

fn hmac_key(key: &Key) -> Option<Vec<u8>> {
    Some(key.hmac.as_ref()?.expose().to_vec())
}

#[test]
fn every_key_file_parses() {
    let files = key_files();
    assert_eq!(files.len(), 52);
    for file in files {
        let key = Key::parse(&read(&format!("stored-keys/{}", file.file)).into()).expect(&file.file);
        assert_eq!(key.secret.key().expose().as_slice(), hex(&file.key), "{}", file.file);
        assert_eq!(key.algorithm().map(Algorithm::as_str), file.algorithm.as_deref(), "{}", file.file);
        assert_eq!(hmac_key(&key), file.hmac_key.as_deref().map(hex), "{}", file.file);
        let created_at = file.created_at.as_deref().unwrap_or("0001-01-01T00:00:00Z");
        assert_eq!(key.created_at(), time(created_at), "{}", file.file);
        assert_eq!(key.created_by(), file.created_by.as_deref(), "{}", file.file);
    }
}

/// What the archived server wrote in its current format, we write byte for byte.
#[test]
fn protobuf_files_are_written_as_they_were() {
    let mut count = 0;
    for file in key_files().into_iter().filter(|file| file.hmac_key.is_some()) {
        let value = Blob::from(read(&format!("stored-keys/{}", file.file)));
        assert!(Key::parse(&value).expect(&file.file).encode().is_same(&value), "{}", file.file);
        count += 1;
    }
    assert_eq!(count, 12);
}

#[test]
fn odd_values_are_read_as_the_archived_server_reads_them() {
    let variants: Variants = read_json("stored-keys/variants.json");
    assert_eq!(variants.cases.len(), 55);
    for case in variants.cases {
        let value = if case.value_b64.0.is_empty() { case.value.into_bytes() } else { case.value_b64.0 };
        let key = Key::parse(&value.into());
        let name = case.name;
        match (name.as_str(), case.status) {
            // The three on which it crashed.
            ("empty-file", None) => assert_eq!(key.err(), Some(Error::Empty)),
            ("pb-no-hmac", None) => assert_eq!(key.map(|key| key.has_hmac()), Ok(false)),
            ("pb-no-key", None) => assert_eq!(key.err(), Some(Error::Malformed("it has no secret key"))),
            (_, Some(200)) => {
                let key = key.expect(&name);
                assert_eq!(key.secret.key().expose().as_slice(), hex(&variants.key), "{name}");
                let hmac = (case.hmac_status == Some(200)).then(|| hex(&variants.hmac_key));
                assert_eq!(hmac_key(&key), hmac, "{name}");
                let described = case.body.expect(&name);
                let algorithm = key.algorithm().unwrap_or(Algorithm::Aes256);
                assert_eq!(Some(algorithm.as_str()), described.algorithm.as_deref(), "{name}");
                // As text: the offset counts, too.
                assert_eq!(key.created_at().format(&Rfc3339).ok(), described.created_at, "{name}");
                assert_eq!(key.created_by(), described.created_by.as_deref(), "{name}");
            }
            (_, Some(502)) => assert!(key.is_err(), "{name}"),
            (_, status) => panic!("{name}: {status:?}"),
        }
    }
}
