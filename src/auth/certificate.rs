//! X.509 certificates: reads the fields that the server and the command line need.

use std::net::IpAddr;

use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::Identity;

/// A parsed certificate.
#[derive(Debug)]
pub struct Certificate<'a>(X509Certificate<'a>);

/// The bytes are not a certificate.
#[derive(Debug, thiserror::Error)]
#[error("not an X.509 certificate")]
pub struct Error;

impl<'a> Certificate<'a> {
    /// Parses DER.
    pub fn parse(der: &'a [u8]) -> Result<Self, Error> {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(Self(certificate)),
            _ => Err(Error),
        }
    }

    /// The identity of its key.
    pub fn identity(&self) -> Identity {
        Identity::of_public_key(self.public_key_info())
    }

    /// Whether it is a CA's.
    pub fn is_ca(&self) -> bool {
        self.0.is_ca()
    }

    /// Whether it names at least one host: a DNS name or an IP address as subject alternative name.
    pub fn has_san(&self) -> bool {
        let is_host = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
        let names = self.0.subject_alternative_name().ok().flatten();
        names.is_some_and(|names| names.value.general_names.iter().any(is_host))
    }

    /// The DNS names and IP addresses it is for.
    pub fn hosts(&self) -> Vec<String> {
        let names = self.0.subject_alternative_name().ok().flatten();
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let host = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(v4), _) => Some(IpAddr::from(v4).to_string()),
                (_, Ok(v6)) => Some(IpAddr::from(v6).to_string()),
                _ => None,
            },
            _ => None,
        };
        names.iter().filter_map(host).collect()
    }

    /// The subject, such as `CN=my-server`.
    pub fn subject(&self) -> String {
        self.0.subject().to_string()
    }

    /// The first moment at which it is valid.
    pub fn not_before(&self) -> OffsetDateTime {
        self.0.validity().not_before.to_datetime()
    }

    /// The last moment at which it is valid.
    pub fn not_after(&self) -> OffsetDateTime {
        self.0.validity().not_after.to_datetime()
    }

    /// Whether it is valid at a moment, given in seconds since 1970.
    pub fn is_valid_at(&self, seconds: u64) -> bool {
        let (validity, seconds) = (self.0.validity(), i64::try_from(seconds).unwrap_or(i64::MAX));
        (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&seconds)
    }

    /// Its public key as DER SubjectPublicKeyInfo.
    pub fn public_key_info(&self) -> &[u8] {
        self.0.public_key().raw
    }

    /// Its public key in two parts: the contents of the DER AlgorithmIdentifier sequence, as webpki names
    /// algorithms, and the key itself.
    pub fn public_key(&self) -> Option<(&[u8], &[u8])> {
        let info = self.0.public_key();
        let (_, sequence) = asn1_content(info.raw)?;
        let (_, algorithm) = asn1_content(sequence)?;
        Some((algorithm, info.subject_public_key.data.as_ref()))
    }
}

/// Splits a DER value into its tag and its content. Bytes after the value are ignored.
fn asn1_content(der: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (len, rest) = match rest {
        [len @ ..=0x7f, rest @ ..] => (usize::from(*len), rest),
        [0x81, len, rest @ ..] => (usize::from(*len), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    Some((*tag, rest.get(..len)?))
}
