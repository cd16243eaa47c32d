//! What a TLS proxy forwards about its client: the certificate and the IP address.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;

use crate::auth::peer;
use crate::crypto::pem;

/// The one certificate in the header: percent-encoded PEM, as nginx writes it.
pub fn certificate(headers: &HeaderMap, name: &HeaderName) -> Result<CertificateDer<'static>, peer::Error> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(peer::Error::Forwarded) };
    parse(value.as_bytes()).ok_or(peer::Error::Forwarded)
}

/// Parses a certificate from the value of the header.
pub fn parse(value: &[u8]) -> Option<CertificateDer<'static>> {
    let text = std::str::from_utf8(value).ok()?;
    // Only these pluses are encoded spaces; the others belong to the base64.
    let text = text.replace("BEGIN+CERTIFICATE", "BEGIN CERTIFICATE").replace("END+CERTIFICATE", "END CERTIFICATE");
    let file = percent_decode_str(&text).collect::<Vec<u8>>();
    let mut certificates = pem::certificates(&file).ok()?;
    let certificate = certificates.pop()?;
    certificates.is_empty().then_some(certificate)
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
}
