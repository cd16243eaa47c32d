//! What the yardstick and the load generator share: options and files.

use std::collections::HashMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `name=value` arguments.
pub struct Options(HashMap<String, String>);

impl Options {
    pub fn of_process() -> Self {
        let pair = |arg: String| arg.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(std::env::args().skip(1).map(|arg| pair(arg).expect("arguments are name=value")).collect())
    }

    pub fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| default.to_owned())
    }

    pub fn number<T: FromStr>(&self, name: &str, default: T) -> T {
        self.0.get(name).map_or(default, |text| text.parse().ok().expect("a number"))
    }
}

/// The one object in a PEM file, as DER.
pub fn read_pem(path: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path).expect("the PEM file can be read");
    let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).expect("the PEM file holds base64")
}
