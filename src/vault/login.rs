//! Logging in: the id of a role is an identity, and its secret is the API key of that identity.

use serde::Deserialize;

use super::body::{self, Text};
use super::reply::{self, bad};
use super::session::{self, Session};
use super::{State, token};
use crate::auth::enclave::{ApiKey, Identity};
use crate::clock;
use crate::server::{Call, Error, Reply};
use crate::telemetry::audit::Commands;

/// The one answer to every pair that does not fit, whatever is wrong.
const INVALID: &str = "invalid role or secret ID";

#[derive(Debug, Deserialize)]
struct Pair<'b> {
    #[serde(borrow)]
    role_id: Option<Text<'b>>,
    #[serde(borrow)]
    secret_id: Option<Text<'b>>,
}

/// Begins a session of a user in an enclave.
pub(super) fn log_in(call: &Call<State>, enclave: Result<&str, &&'static str>, body: &[u8]) -> Result<Reply, Error> {
    let state = call.state();
    let mut commands = Commands::of(enclave.unwrap_or_default());
    let begun = begin(state, enclave.ok(), body);
    // The name of a role that does not fit may be a secret in the wrong place.
    let who = begun.as_ref().map(|(session, ..)| session.identity.to_string()).unwrap_or_default();
    commands.add("LOGIN", &who, "");
    call.asks(commands);
    let (session, token, policies) = begun?;
    let left = state.renewals.left(&session, state.ttl, session.issued).unwrap_or_default();
    Ok(reply::auth(&token::auth(&session, &token, &policies, left)))
}

type Begun = (Session, zeroize::Zeroizing<String>, Vec<String>);

fn begin(state: &State, enclave: Option<&str>, body: &[u8]) -> Result<Begun, Error> {
    let Pair { role_id, secret_id } = body::parse(body)?;
    let role = role_id.filter(|role| !role.is_empty()).ok_or_else(|| bad("missing role_id"))?;
    let secret = secret_id.filter(|secret| !secret.is_empty()).ok_or_else(|| bad("missing secret_id"))?;
    let invalid = || bad(INVALID);
    let identity: Identity = role.parse().map_err(|_| invalid())?;
    let key = ApiKey::parse(&secret).map_err(|_| invalid())?;
    if key.identity() != identity {
        return Err(invalid());
    }
    let entry = state.kms.enter(enclave.ok_or_else(invalid)?, &identity).map_err(|_| invalid())?;
    let issued = clock::now().unix_timestamp();
    let end = issued.saturating_add(session::seconds(state.max_ttl));
    let begun = Session::begin(&state.kms.sessions(), *entry.enclave_id(), identity, (issued, end));
    let (session, token) = begun.map_err(|error| {
        Error::new(hyper::StatusCode::INTERNAL_SERVER_ERROR, "internal server error").caused_by(error)
    })?;
    Ok((session, token, entry.policy().iter().map(ToString::to_string).collect()))
}
