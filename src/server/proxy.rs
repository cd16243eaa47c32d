//! What a TLS proxy forwards about its client: the certificate and the IP address.

mod xfcc;

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use percent_encoding::percent_decode;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use crate::auth::peer;
use crate::crypto::{base64, pem};

/// How a proxy writes the client's certificate into the header. The config says which form it is: what the header holds
/// never decides it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One certificate as percent-encoded PEM, as nginx writes it.
    #[default]
    Pem,
    /// DER in base64, leaf first, commas between: PEM without its frame, as Traefik and HAProxy write it. It may be
    /// percent-encoded.
    Base64,
    /// `Cert="…"` or `Chain="…"` among other fields, as Envoy writes it.
    Xfcc,
    /// `:base64:`, the Byte Sequence of RFC 9440.
    Rfc9440,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::Pem, Self::Base64, Self::Xfcc, Self::Rfc9440];

    /// The header that proxies use for it, unless they are told another name.
    pub fn header(self) -> &'static str {
        match self {
            Self::Pem => "X-Tls-Client-Cert",
            Self::Base64 => "X-Forwarded-Tls-Client-Cert",
            Self::Xfcc => "X-Forwarded-Client-Cert",
            Self::Rfc9440 => "Client-Cert",
        }
    }

    /// The certificates in the value of the header, the client's first; none: the value is not of this form. There is
    /// at least one.
    pub fn parse(self, value: &[u8]) -> Option<Chain> {
        match self {
            Self::Pem => percent_encoded(value).filter(|chain| chain.len() == 1),
            Self::Base64 => {
                let value: Vec<u8> = percent_decode(value).collect();
                value.split(|byte| *byte == b',').map(der).collect()
            }
            Self::Xfcc => xfcc::parse(value),
            Self::Rfc9440 => {
                let value = value.strip_prefix(b":")?.strip_suffix(b":")?;
                der(value).map(|certificate| vec![certificate])
            }
        }
    }
}

/// Certificates, the client's first.
pub type Chain = Vec<CertificateDer<'static>>;

/// The certificates in the one header of this name.
pub fn certificates(headers: &HeaderMap, name: &HeaderName, form: Form) -> Result<Chain, peer::Error> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(peer::Error::Forwarded) };
    form.parse(value.as_bytes()).ok_or(peer::Error::Forwarded)
}

/// Certificates as percent-encoded PEM; at least one.
fn percent_encoded(value: &[u8]) -> Option<Chain> {
    let text = std::str::from_utf8(value).ok()?;
    // Only these pluses are encoded spaces; the others belong to the base64.
    let text = text.replace("BEGIN+CERTIFICATE", "BEGIN CERTIFICATE").replace("END+CERTIFICATE", "END CERTIFICATE");
    let file = percent_decode(text.as_bytes()).collect::<Vec<u8>>();
    pem::certificates(&file).ok().filter(|chain| !chain.is_empty())
}

/// A certificate as DER in base64.
fn der(text: &[u8]) -> Option<CertificateDer<'static>> {
    let der = base64::decode(text).filter(|der| !der.is_empty())?;
    Some(der.to_vec().into())
}

/// The last entry of `X-Forwarded-For`, the one that the proxy itself wrote.
pub fn client_ip(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_ip_is_the_last_entry() {
        let mut headers = HeaderMap::new();
        assert_eq!(client_ip(&headers), None);
        headers.append("x-forwarded-for", "10.0.0.1, 10.0.0.2".parse().expect("valid"));
        headers.append("x-forwarded-for", "10.0.0.3,  ::1".parse().expect("valid"));
        assert_eq!(client_ip(&headers), Some("::1".parse().expect("valid")));
    }

    /// PEM without its frame and its line breaks: base64 of DER.
    fn bare(name: &str) -> String {
        let pem = std::fs::read_to_string(format!("certs/{name}.crt")).expect("a certificate");
        pem.lines().filter(|line| !line.starts_with("-----")).collect()
    }

    fn chain(names: &[&str]) -> Option<Chain> {
        names.iter().map(|name| der(bare(name).as_bytes())).collect()
    }

    #[test]
    fn base64_is_a_chain_and_may_be_percent_encoded() {
        let (app, ca) = (bare("app"), bare("ca"));
        let parse = |value: &str| Form::Base64.parse(value.as_bytes());
        let escaped = app.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        assert_eq!(parse(&app), chain(&["app"]));
        assert_eq!(parse(&escaped), chain(&["app"]));
        assert_eq!(parse(&format!("{app},{ca}")), chain(&["app", "ca"]));
        assert_eq!(parse(&format!("{escaped}%2C{ca}")), chain(&["app", "ca"]));
        for bad in ["", ",", &format!("{app},"), &format!(",{app}"), &format!("{app}, {ca}"), &format!(":{app}:"), "%"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_byte_sequence_is_one_certificate_between_colons() {
        let app = bare("app");
        let parse = |value: &str| Form::Rfc9440.parse(value.as_bytes());
        assert_eq!(parse(&format!(":{app}:")), chain(&["app"]));
        for bad in ["", ":", "::", &app, &format!(":{app}"), &format!("{app}:"), &format!(":{app}:, :{app}:")] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_form_is_read_as_another() {
        let app = bare("app");
        let pem = std::fs::read("certs/app.crt").expect("a certificate");
        let pem = percent_encoding::percent_encode(&pem, percent_encoding::NON_ALPHANUMERIC).to_string();
        let values = [pem.clone(), app.clone(), format!("Cert=\"{pem}\""), format!(":{app}:")];
        for (form, own) in Form::ALL.into_iter().zip(&values) {
            for value in &values {
                assert_eq!(form.parse(value.as_bytes()).is_some(), value == own, "{form:?}: {value}");
            }
        }
    }
}
