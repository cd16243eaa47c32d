//! What is asked, in the words of each of the two protocols.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// 80 bytes of associated data, as an object store sends them.
const CONTEXT: [u8; 80] = [1; 80];

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const BINARY: &[(&str, &str)] = &[("accept", "application/octet-stream"), ("content-type", "application/octet-stream")];

/// A protocol.
#[derive(Clone, Copy)]
pub enum Api {
    Kes,
    Kms,
}

/// One request, in the forms that the versions of HTTP want.
pub struct Request {
    path: String,
    headers: &'static [(&'static str, &'static str)],
    pub body: Bytes,
    pub http1: Vec<u8>,
}

impl Request {
    fn new(path: String, headers: &'static [(&'static str, &'static str)], body: Vec<u8>) -> Self {
        let mut http1 = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
        headers.iter().for_each(|(name, value)| http1 += &format!("{name}: {value}\r\n"));
        http1 += &format!("content-length: {}\r\n\r\n", body.len());
        let http1 = [http1.as_bytes(), &body].concat();
        Self { path, headers, body: body.into(), http1 }
    }

    pub fn http2(&self) -> http::Request<()> {
        let mut request = http::Request::post(format!("https://localhost{}", self.path));
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        request.header("content-length", self.body.len()).body(()).expect("a valid request")
    }
}

impl Api {
    pub fn of(name: &str) -> Self {
        match name {
            "kes" => Self::Kes,
            "kms" => Self::Kms,
            other => panic!("unknown protocol {other}"),
        }
    }

    /// The request for this operation with key `n`; that to decrypt something is made by [`Api::decrypt`].
    pub fn request(self, operation: &str, n: usize) -> Request {
        match (self, operation) {
            (_, "decrypt") => self.request("generate", n),
            (Self::Kes, _) => {
                let body = format!("{{\"context\":\"{}\"}}", STANDARD.encode(CONTEXT));
                Request::new(format!("/v1/key/{operation}/bench-{n}"), JSON, body.into())
            }
            (Self::Kms, "generate") => command(207, &[(1, &name(n)), (3, &CONTEXT)]),
            (Self::Kms, "encrypt") => command(205, &[(1, &name(n)), (3, &[7; 32]), (4, &CONTEXT)]),
            (Self::Kms, "status") => command(204, &[(1, &name(n))]),
            (Self::Kms, other) => panic!("unknown operation {other}"),
        }
    }

    /// The request to decrypt the data key that is in `reply`.
    pub fn decrypt(self, n: usize, reply: &[u8]) -> Request {
        match self {
            Self::Kes => {
                let reply: serde_json::Value = serde_json::from_slice(reply).expect("JSON");
                let context = STANDARD.encode(CONTEXT);
                let body = format!("{{\"ciphertext\":{},\"context\":\"{context}\"}}", reply["ciphertext"]);
                Request::new(format!("/v1/key/decrypt/bench-{n}"), JSON, body.into())
            }
            Self::Kms => command(206, &[(1, &name(n)), (3, ciphertext(reply)), (4, &CONTEXT)]),
        }
    }
}

fn name(n: usize) -> Vec<u8> {
    format!("bench-{n}").into()
}

/// A command whose message has these fields, all of them of bytes and shorter than 128.
fn command(number: u16, fields: &[(u8, &[u8])]) -> Request {
    let mut message = Vec::new();
    for (field, value) in fields {
        assert!(value.len() < 128, "a length is one byte");
        message.extend([field << 3 | 2, value.len() as u8]);
        message.extend_from_slice(value);
    }
    let mut body = number.to_be_bytes().to_vec();
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    Request::new("/v1/kms/bench".into(), BINARY, body)
}

/// The ciphertext of a data key: the reply's last field.
fn ciphertext(reply: &[u8]) -> &[u8] {
    let mut rest = &reply[6..];
    loop {
        match rest {
            [0x08, _, after @ ..] => rest = after,
            [0x12, len, after @ ..] => rest = &after[usize::from(*len)..],
            [0x1a, len, after @ ..] => return &after[..usize::from(*len)],
            _ => panic!("the reply holds no ciphertext"),
        }
    }
}
