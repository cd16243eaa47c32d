//! What an answer must be: as recorded, or as `testdata/differences.toml` says.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::case;
use crate::support::{Protocol, Response};

const JSON: &str = "application/json";

/// What an answer must be.
pub enum Expected {
    /// The connection or the stream ends without one.
    Nothing,
    Answer(Answer),
}

pub struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Body,
}

enum Body {
    /// A JSON value in which placeholders stand for what varies.
    Json(Value),
    Text(String),
}

/// `answer` in `differences.toml`: a status and one of `message`, `json`, `text`; or one such for each protocol.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ours {
    status: Option<u16>,
    /// The message of an error.
    message: Option<String>,
    json: Option<String>,
    text: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Instead of all this: there is no answer.
    #[serde(default)]
    nothing: bool,
    h1: Option<Box<Self>>,
    h2: Option<Box<Self>>,
}

impl Expected {
    pub fn recorded(response: &case::Response) -> Self {
        let (Some(status), Some(body)) = (response.status, &response.body) else { return Self::Nothing };
        // How long a body is, is its own business; white space may vary.
        let mut headers = response.headers.clone();
        headers.retain(|name, value| match name.as_str() {
            "content-length" => value == "0",
            "(stream)" => false,
            _ => true,
        });
        let is_json = headers.get("content-type").is_some_and(|kind| kind == JSON) && !body.is_empty();
        let body = if is_json { Body::Json(template(body)) } else { Body::Text(body.clone()) };
        let mut answer = Answer { status, headers, body };
        if !response.array_order.is_empty() {
            answer.sort();
        }
        Self::Answer(answer)
    }

    pub fn ours(answer: &toml::Table, protocol: Protocol) -> Self {
        let ours: Ours = answer.clone().try_into().unwrap_or_else(|error| panic!("{answer}: {error}"));
        match (protocol, ours) {
            (Protocol::H1, Ours { h1: Some(ours), .. }) | (Protocol::H2, Ours { h2: Some(ours), .. }) => {
                ours.expected()
            }
            (_, ours) => ours.expected(),
        }
    }

    /// Says in what way `answer` is not as expected.
    pub fn check(&self, answer: &io::Result<Response>, method: &str) -> Result<(), String> {
        match (self, answer) {
            (Self::Nothing, Err(_)) => Ok(()),
            (Self::Nothing, Ok(_)) => Err("expected no answer".into()),
            (Self::Answer(_), Err(error)) => Err(format!("no answer: {error}")),
            (Self::Answer(expected), Ok(answer)) => expected.check(answer, method),
        }
    }
}

impl Ours {
    fn expected(self) -> Expected {
        if self.nothing {
            return Expected::Nothing;
        }
        let mut headers = self.headers;
        let body = match (self.message, self.json, self.text) {
            (Some(message), None, None) => Body::Json(serde_json::json!({ "message": message })),
            (None, Some(json), None) => Body::Json(template(&json)),
            (None, None, Some(text)) => Body::Text(text),
            _ => panic!("differences.toml: an answer has a message, or json, or text"),
        };
        if matches!(body, Body::Json(_)) {
            headers.entry("content-type".into()).or_insert(JSON.into());
        }
        Expected::Answer(Answer { status: self.status.expect("an answer has a status"), headers, body })
    }
}

impl Answer {
    fn sort(&mut self) {
        if let Body::Json(Value::Array(items)) = &mut self.body {
            items.sort_by_key(Value::to_string);
        }
    }

    fn check(&self, answer: &Response, method: &str) -> Result<(), String> {
        if answer.status != self.status {
            return Err(format!("expected status {}", self.status));
        }
        for (name, value) in &self.headers {
            if answer.headers.get(name) != Some(value) {
                return Err(format!("expected '{name}: {value}'"));
            }
        }
        match &self.body {
            Body::Text(text) if answer.body == text.as_bytes() => Ok(()),
            Body::Text(text) => Err(format!("expected the body {text:?}")),
            Body::Json(_) if method == "HEAD" => Ok(()),
            Body::Json(value) => {
                let mut actual: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
                if let (Value::Array(expected), Value::Array(actual)) = (value, &mut actual)
                    && expected.is_sorted_by_key(|item| item.to_string())
                {
                    actual.sort_by_key(Value::to_string);
                }
                matches(value, &actual).map_err(|place| format!("{place}, expected {value}"))
            }
        }
    }
}

/// Parses JSON in which `<number>` may stand for a number.
fn template(text: &str) -> Value {
    let text = text.replace(":<number>", ":\"<number>\"");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Whether `actual` is `expected`; otherwise where not.
fn matches(expected: &Value, actual: &Value) -> Result<(), String> {
    let fits = match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (name, value) in expected {
                let actual = actual.get(name).ok_or_else(|| format!("'{name}' is missing"))?;
                matches(value, actual).map_err(|place| format!("in '{name}': {place}"))?;
            }
            let extra = actual.keys().find(|name| !expected.contains_key(*name));
            return extra.map_or(Ok(()), |name| Err(format!("there is a '{name}'")));
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if expected.len() != actual.len() {
                return Err(format!("{} elements, not {}", actual.len(), expected.len()));
            }
            return expected.iter().zip(actual).try_for_each(|(expected, actual)| matches(expected, actual));
        }
        (Value::String(placeholder), actual) => fits(placeholder, actual),
        (expected, actual) => expected == actual,
    };
    if fits { Ok(()) } else { Err(format!("{actual} is not {expected}")) }
}

/// Whether `actual` is the text, or what the placeholder stands for.
fn fits(text: &str, actual: &Value) -> bool {
    match text {
        "<number>" => actual.is_number(),
        // The recording server was built without its version.
        "<unknown>" => actual.as_str().is_some_and(|text| !text.is_empty()),
        "<time>" => actual.as_str().is_some_and(|time| OffsetDateTime::parse(time, &Rfc3339).is_ok()),
        text => match bytes(text) {
            Some(len) => {
                let bytes = actual.as_str().and_then(|text| STANDARD.decode(text).ok());
                bytes.is_some_and(|bytes| bytes.len() == len)
            }
            None => actual == text,
        },
    }
}

/// The length in `<ciphertext: 44 bytes>`.
fn bytes(placeholder: &str) -> Option<usize> {
    let (_, rest) = placeholder.strip_prefix('<')?.split_once(": ")?;
    rest.strip_suffix(" bytes>")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_stand_for_what_varies() {
        let expected = template(r#"{"a":"<time>","b":<number>,"c":["<ciphertext: 3 bytes>"],"d":null}"#);
        let good = serde_json::json!({"a": "2023-11-14T22:13:20Z", "b": 1, "c": ["AAAA"], "d": null});
        assert_eq!(matches(&expected, &good), Ok(()));
        for (field, value) in [("a", "soon".into()), ("b", "1".into()), ("c", vec!["AAA="].into()), ("d", 0.into())] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(matches(&expected, &bad).is_err(), "{bad}");
        }
        let mut more = good.clone();
        more["e"] = 1.into();
        assert!(matches(&expected, &more).is_err());
    }
}
