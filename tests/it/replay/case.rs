//! A recorded request and what came back.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::answer::Expected;
use crate::support::client::Request;
use crate::support::{Protocol, testdata};

/// A file of `testdata/http`.
#[derive(Deserialize)]
pub struct File {
    pub cases: Vec<Case>,
}

impl File {
    pub fn load(name: &str) -> Self {
        let text = std::fs::read(testdata(format!("http/{name}.json"))).expect("readable");
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

#[derive(Deserialize)]
pub struct Case {
    pub client: Option<String>,
    pub request: Recorded,
    pub step: Option<String>,
    proto: String,
    response: Option<Response>,
    response_h1: Option<Response>,
    response_h2: Option<Response>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    pub method: String,
    path: String,
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    body_b64: Option<String>,
    body_recipe: Option<Recipe>,
    body_size: Option<usize>,
    #[serde(default)]
    chunked: bool,
}

#[derive(Deserialize)]
struct Recipe {
    prefix: String,
    fill: String,
    count: usize,
    suffix: String,
}

/// What came back, as recorded.
#[derive(Clone, Deserialize)]
pub struct Response {
    pub status: Option<u16>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    #[serde(default)]
    pub array_order: String,
}

impl Case {
    pub fn is_for(&self, protocol: Protocol) -> bool {
        match self.proto.as_str() {
            "h1" => protocol == Protocol::H1,
            "h2" => protocol == Protocol::H2,
            _ => true,
        }
    }

    pub fn recorded(&self, protocol: Protocol) -> Expected {
        let own = match protocol {
            Protocol::H1 => &self.response_h1,
            Protocol::H2 => &self.response_h2,
        };
        Expected::recorded(own.as_ref().or(self.response.as_ref()).expect("a response for each protocol"))
    }

    pub fn request(&self) -> Request {
        let recorded = &self.request;
        let mut request = Request::new(&recorded.method, &recorded.path);
        request.headers = recorded.headers.iter().map(|(name, value)| (name.clone(), repeated(value))).collect();
        request.headers.extend(recorded.host.iter().map(|host| ("Host".to_owned(), host.clone())));
        request.body = recorded.body().map(Into::into);
        request.chunked = recorded.chunked;
        request
    }
}

impl Recorded {
    pub fn short_path(&self) -> String {
        self.path.chars().take(80).collect()
    }

    fn body(&self) -> Option<Vec<u8>> {
        let body = match (&self.body, &self.body_b64, &self.body_recipe) {
            (Some(text), None, None) => text.clone().into_bytes(),
            (None, Some(base64), None) => STANDARD.decode(base64).expect("base64"),
            (None, None, Some(recipe)) => {
                format!("{}{}{}", recipe.prefix, recipe.fill.repeat(recipe.count), recipe.suffix).into_bytes()
            }
            _ => return None,
        };
        assert!(self.body_size.is_none_or(|size| size == body.len()), "the recipe makes another size");
        Some(body)
    }
}

/// A header's value; `<'a' repeated 3 times>` stands for `aaa`.
fn repeated(value: &str) -> String {
    let parts = value.strip_prefix("<'").and_then(|rest| rest.strip_suffix(" times>")?.split_once("' repeated "));
    parts.map_or(value.to_owned(), |(fill, count)| fill.repeat(count.parse().expect("a count")))
}
