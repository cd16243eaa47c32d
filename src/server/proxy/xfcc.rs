//! The header `X-Forwarded-Client-Cert` of Envoy: fields with semicolons between, such as `Hash=…;Cert="…";Subject="…"`.
//!
//! Envoy copies names out of the client's certificate into it, so a client with a certificate of its own making chooses
//! some of the text. Therefore: one element only, no field twice that counts here, and all those fields must agree.

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::{Chain, percent_encoded};
use crate::hex;

/// The fields that say which certificate it is.
#[derive(Default)]
struct Fields<'a> {
    cert: Option<&'a [u8]>,
    chain: Option<&'a [u8]>,
    hash: Option<&'a [u8]>,
}

/// The certificates in the header's value, the client's first.
pub(super) fn parse(value: &[u8]) -> Option<Chain> {
    let Fields { cert, chain, hash } = Fields::of(value)?;
    let cert = match cert.map(percent_encoded) {
        Some(certificates) => Some(<[CertificateDer<'static>; 1]>::try_from(certificates?).ok()?),
        None => None,
    };
    let chain = match (chain.map(percent_encoded), cert) {
        (Some(chain), cert) => {
            let chain = chain?;
            cert.is_none_or(|[cert]| chain.first() == Some(&cert)).then_some(chain)?
        }
        (None, Some(cert)) => cert.to_vec(),
        (None, None) => return None,
    };
    let is_hash_of =
        |hash: &[u8], first: &[u8]| hex::encode(&Sha256::digest(first)).as_bytes() == hash.to_ascii_lowercase();
    let agrees = hash.is_none_or(|hash| chain.first().is_some_and(|first| is_hash_of(hash, first)));
    agrees.then_some(chain)
}

impl<'a> Fields<'a> {
    /// The fields of the only element.
    fn of(mut rest: &'a [u8]) -> Option<Self> {
        let mut fields = Self::default();
        loop {
            let (name, after) = split_at(rest, b'=')?;
            let (value, after) = if let Some(quoted) = after.strip_prefix(b"\"") {
                end_of_quoted(quoted)?
            } else {
                let end = after.iter().position(|byte| matches!(byte, b';' | b',' | b'"')).unwrap_or(after.len());
                after.split_at(end)
            };
            let field = match name.to_ascii_lowercase().as_slice() {
                b"cert" => Some(&mut fields.cert),
                b"chain" => Some(&mut fields.chain),
                b"hash" => Some(&mut fields.hash),
                _ => None,
            };
            if let Some(field) = field {
                field.is_none().then(|| *field = Some(value))?;
            }
            match after.split_first() {
                None => return Some(fields),
                Some((b';', after)) => rest = after,
                // A comma begins the element of another proxy, which only this one has vouched for.
                Some(_) => return None,
            }
        }
    }
}

fn split_at(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The rest of a quoted value, and what follows it. A backslash hides the character after it.
fn end_of_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut is_hidden = false;
    let end = text.iter().position(|byte| match (is_hidden, byte) {
        (false, b'"') => true,
        (hidden, byte) => {
            is_hidden = !hidden && *byte == b'\\';
            false
        }
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

    use super::*;

    fn pem(names: &[&str]) -> String {
        let files = names.iter().map(|name| std::fs::read(format!("certs/{name}.crt")).expect("a certificate"));
        percent_encode(&files.flatten().collect::<Vec<u8>>(), NON_ALPHANUMERIC).to_string()
    }

    fn hash(name: &str) -> String {
        hex::encode(&Sha256::digest(&percent_encoded(pem(&[name]).as_bytes()).expect("a certificate")[0]))
    }

    fn certificates(value: &str) -> Option<usize> {
        let chain = parse(value.as_bytes())?;
        assert_eq!(chain.first(), percent_encoded(pem(&["app"]).as_bytes()).expect("a certificate").first(), "{value}");
        Some(chain.len())
    }

    #[test]
    fn the_certificate_is_found_among_other_fields() {
        let (app, chain, hash) = (pem(&["app"]), pem(&["app", "ca"]), hash("app"));
        for (value, count) in [
            (format!("Cert=\"{app}\""), 1),
            (format!("Cert={app}"), 1),
            (format!("cert=\"{app}\""), 1),
            (format!("Chain=\"{chain}\""), 2),
            (format!("Hash={hash};Cert=\"{app}\";Chain=\"{chain}\""), 2),
            (
                format!(
                    "By=spiffe://a/b;Hash={};Subject=\"CN=a;b,\\\"c\\\\\";URI=;DNS=a;DNS=b;Cert=\"{app}\"",
                    hash.to_uppercase()
                ),
                1,
            ),
        ] {
            assert_eq!(certificates(&value), Some(count), "{value}");
        }
    }

    /// What a client could make of its header with the names in a certificate of its own, and what Envoy never sends.
    #[test]
    fn what_disagrees_is_refused() {
        let (app, admin, ca) = (pem(&["app"]), pem(&["admin"]), pem(&["ca"]));
        let (by_app, by_admin) = (hash("app"), hash("admin"));
        let own = format!("Hash={by_app};Cert=\"{app}\"");
        for value in [
            String::new(),
            ";".into(),
            "Cert".into(),
            "Cert=".into(),
            "Cert=\"\"".into(),
            "Chain=\"\"".into(),
            format!("Hash={by_app}"),
            format!("Cert=\"{app}"),
            format!("Cert=\"{app}\"x"),
            format!("Cert=\"{app}\";"),
            format!("Cert=\"{app}{ca}\""),
            format!("Hash={by_admin};Cert=\"{app}\""),
            format!("Hash=;Cert=\"{app}\""),
            format!("{own};URI=x;Cert=\"{admin}\""),
            format!("{own};URI=x;cert=\"{app}\""),
            format!("{own};URI=x;Chain=\"{admin}{app}\""),
            format!("Hash={by_app};URI=x;Chain=\"{admin}\""),
            format!("Hash={by_app};URI=x;Hash={by_admin};Cert=\"{admin}\""),
            format!("{own};URI=x,Hash={by_admin};Cert=\"{admin}\""),
            format!("Hash={by_admin};Cert=\"{admin}\",{own}"),
            format!("{own}, {own}"),
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
    }
}
