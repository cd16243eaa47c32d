//! Endpoints: where a server is.

use std::fmt;

use rustls::pki_types::ServerName;

/// The port of addresses without one: the default port of key servers.
const PORT: u16 = 7373;

/// The port of `https://` addresses without one.
pub const HTTPS: u16 = 443;

/// The text is not the address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no server address; write 'host:port' or 'https://host:port'")]
pub struct Error(String);

/// The address of a server: host, port, and the path prefix that a proxy in front of it may need.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    prefix: String,
}

impl Endpoint {
    /// Parses `host` or `host:port`, with or without `https://`. `http://` is an error: the API is never served without
    /// TLS.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let error = || Error(text.to_owned());
        let url = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let (address, default_port) = url.map_or((text, PORT), |address| (address, HTTPS));
        let (authority, prefix) = address.split_at(address.find('/').unwrap_or(address.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| error())?),
            _ => (authority, default_port),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        ServerName::try_from(host).map_err(|_| error())?;
        if !prefix.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#')) {
            return Err(error());
        }
        Ok(Self { host: host.to_owned(), port, prefix: prefix.trim_end_matches('/').to_owned() })
    }

    /// Parses a comma-separated list of at least one.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Error> {
        text.split(',').map(|endpoint| Self::parse(endpoint.trim())).collect()
    }

    /// Host and port, as they are dialled.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// `host:port`
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The name that its certificate must be valid for.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.host.clone()).expect("parse has seen that it is one")
    }

    /// The address of a path of the API.
    pub(super) fn uri(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.prefix)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed() {
        for (text, whole) in [
            ("127.0.0.1:7373", "https://127.0.0.1:7373"),
            ("https://kes.local", "https://kes.local:443"),
            ("http://127.0.0.1:7373", "https://127.0.0.1:7373"),
            ("https://[::1]:7373/", "https://[::1]:7373"),
            ("[::1]", "https://[::1]:7373"),
            ("localhost", "https://localhost:7373"),
            ("kes.local/prefix", "https://kes.local:7373/prefix"),
            ("proxy:8443/kes/", "https://proxy:8443/kes"),
        ] {
            assert_eq!(Endpoint::parse(text).expect(text).to_string(), whole);
        }
    }

    #[test]
    fn a_list_is_separated_by_commas() {
        let list = Endpoint::parse_list("a:1, https://b:2").expect("two");
        assert_eq!(list.iter().map(Endpoint::authority).collect::<Vec<_>>(), ["a:1", "b:2"]);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "https://", "a:", "a:b", "a:70000", ":7373", "a b", "a,", "ftp://a:1", "a/x y", "a/?q"] {
            assert!(Endpoint::parse_list(text).is_err(), "{text:?}");
        }
    }
}
