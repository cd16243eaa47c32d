//! The identity of a client: computed from the certificates that it shows.

use std::fmt;

use super::Identity;
use super::certificate::Certificate;

/// Why a list of certificates gives no identity. `Display` is the message that clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// There is no certificate.
    Missing,
    /// The first certificate is a CA's, which is not for clients.
    IsCa,
    /// There are more certificates, and they are not its CAs.
    MoreThanOne,
    /// The chain leads to no known CA, or has expired.
    Untrusted,
    /// A proxy forwarded no certificate, or one that cannot be read or verified.
    Forwarded,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing | Self::IsCa | Self::Untrusted => "tls: client certificate is required",
            Self::MoreThanOne => "tls: received more than one client certificate",
            Self::Forwarded => "tls: no valid client certificate was forwarded by the proxy",
        })
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Advice for the operator, which clients do not see.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Missing => "the client sent no certificate",
            Self::IsCa => {
                "the client's certificate is a CA certificate (CA:TRUE), as 'openssl req -x509' makes it by default; \
                 add '-addext basicConstraints=critical,CA:FALSE'"
            }
            Self::Untrusted => {
                "the chain of the client's certificate leads to no CA of tls.ca, or one of it has expired"
            }
            Self::MoreThanOne => "beside its own certificate a client may send CA certificates only",
            Self::Forwarded => {
                "check that the proxy writes the header of tls.proxy.header.cert, in the form of tls.proxy.header.form"
            }
        }
    }
}

/// The identity of the FIRST certificate, whose key signed the handshake. Taking any other one would
/// let a client pass for the owner of a public certificate.
pub fn identify<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Result<Identity, Error> {
    let mut chain = chain.into_iter();
    let first = chain.next().ok_or(Error::Missing)?;
    let certificate = Certificate::parse(first).map_err(|_| Error::Missing)?;
    if certificate.is_ca() {
        return Err(Error::IsCa);
    }
    for further in chain {
        if further == first || !Certificate::parse(further).is_ok_and(|certificate| certificate.is_ca()) {
            return Err(Error::MoreThanOne);
        }
    }
    Ok(certificate.identity())
}
