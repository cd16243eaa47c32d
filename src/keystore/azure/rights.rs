//! Whether the credentials have the rights that they need.

use hyper::Method;
use zeroize::Zeroizing;

use super::api::{Api, Refusal};
use super::policy::Right;
use crate::keystore::{Access, Error};

use Right::{Delete, Get, List, Purge, Set};

/// Checks by calls that change nothing whether the credentials allow `access`.
pub(super) async fn check(api: &Api, prefix: &str, access: Access) -> Result<(), Error> {
    let (mut missing, mut inner) = (Vec::new(), String::new());
    for right in Right::needed(access) {
        if let Some(refusal) = denial(api, prefix, *right).await? {
            missing.push(right.name());
            inner = refusal.inner;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let commands = api.rights.commands(Right::needed(access), &inner);
    Err(Error::Failed(format!("missing rights: {}; {commands}", missing.join(", ")).into()))
}

/// The refusal of a call because of a missing right: the vault checks rights before it looks whether a secret is there,
/// or whether what is to be written is valid.
async fn denial(api: &Api, prefix: &str, right: Right) -> Result<Option<Refusal>, Error> {
    // Longer than the name of a key.
    let nowhere = format!("{prefix}{:-<81}", "claviger-check");
    // A secret must have a value.
    let body = Zeroizing::new(b"{}".to_vec());
    let call = match right {
        Get => api.at(right, Method::GET, &format!("secrets/{nowhere}")),
        List => api.at(right, Method::GET, "secrets?maxresults=1"),
        Set => api.at(right, Method::PUT, &format!("secrets/{nowhere}")).with_body(&body),
        Delete => api.at(right, Method::DELETE, &format!("secrets/{nowhere}")),
        Purge => api.at(right, Method::DELETE, &format!("deletedsecrets/{nowhere}")),
    };
    Ok(api.try_call(call).await?.err().filter(Refusal::is_denial))
}
