//! Tokens about themselves.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::body::{self, Seconds};
use super::reply::{self, bad};
use super::session::{Session, TooMany};
use super::{State, User};
use crate::clock;
use crate::hex;
use crate::kms::Revocation;
use crate::server::{Error, Reply};

/// What a token says of itself. An API key and a certificate do not end here: clients read a TTL of 0 so.
#[derive(Serialize)]
struct Shown<'t> {
    accessor: String,
    creation_time: i64,
    creation_ttl: u64,
    display_name: &'t str,
    entity_id: &'t str,
    expire_time: Option<String>,
    explicit_max_ttl: u64,
    id: &'t str,
    issue_time: Option<String>,
    meta: Option<Metadata>,
    num_uses: u64,
    orphan: bool,
    path: &'static str,
    policies: Vec<&'t str>,
    renewable: bool,
    ttl: u64,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// Shows the caller's token. Its id is the identity, not the token: nothing that is secret is said again.
pub(super) fn look_up(state: &State, user: &User) -> Result<Reply, Error> {
    let identity = user.entry.caller().as_str();
    let mut shown = Shown {
        accessor: String::new(),
        creation_time: 0,
        creation_ttl: 0,
        display_name: identity,
        entity_id: identity,
        expire_time: None,
        explicit_max_ttl: 0,
        id: identity,
        issue_time: None,
        meta: None,
        num_uses: 0,
        orphan: true,
        path: "auth/token/create",
        policies: user.entry.policy().iter().map(|policy| policy.as_str()).collect(),
        renewable: false,
        ttl: 0,
        kind: "service",
    };
    if let Some(session) = user.credential.session() {
        let now = clock::now().unix_timestamp();
        let left = state.renewals.left(session, state.ttl, now).ok_or_else(reply::denied)?;
        shown.accessor = accessor(session);
        shown.meta = Some(Metadata { role_name: identity.to_owned() });
        shown.creation_time = session.issued;
        shown.creation_ttl = state.ttl.as_secs();
        shown.expire_time = time(now.saturating_add(i64::try_from(left).unwrap_or(i64::MAX)));
        shown.issue_time = time(session.issued);
        shown.path = "auth/approle/login";
        (shown.renewable, shown.ttl) = (true, left);
    }
    Ok(reply::data(shown, 1_024))
}

fn time(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

/// Names a session without its token.
fn accessor(session: &Session) -> String {
    hex::encode(&session.hash[..12])
}

#[derive(Debug, Deserialize)]
struct Renewal {
    // Read, so that nonsense is refused; the config alone says how long a session lasts.
    #[expect(dead_code, reason = "only its form matters")]
    increment: Option<Seconds>,
}

/// Renews a session; the token stays the same. An API key and a certificate need no renewal.
pub(super) fn renew(state: &State, user: &User, body: &[u8]) -> Result<Reply, Error> {
    let Renewal { .. } = body::parse(body)?;
    let (Some(session), Some(token)) = (user.credential.session(), user.credential.token()) else {
        return Err(bad("lease is not renewable"));
    };
    let now = clock::now().unix_timestamp();
    state.renewals.renew(session, state.ttl, now).map_err(|TooMany| {
        let advice = "too many sessions of this identity are renewed: end those that are not needed, or log in again";
        Error::new(StatusCode::TOO_MANY_REQUESTS, advice)
    })?;
    let left = state.renewals.left(session, state.ttl, now).ok_or_else(reply::denied)?;
    let policies: Vec<_> = user.entry.policy().iter().map(ToString::to_string).collect();
    Ok(reply::auth(&auth(session, token, &policies, left)))
}

/// Ends a session. An API key ends when its identity is removed.
pub(super) async fn revoke(state: &State, user: &User) -> Result<Reply, Error> {
    let Some(session) = user.credential.session() else {
        let advice =
            "this token is not revoked here: an administrator removes the identity, with 'claviger kms rm-identity'";
        return Err(bad(advice));
    };
    let revocation = Revocation { hash: session.hash, identity: session.identity, end: session.end };
    state.kms.revoke_session(&user.entry, revocation).await?;
    state.renewals.forget(session);
    Ok(reply::nothing())
}

/// What a client gets of a session.
#[derive(Serialize)]
pub(super) struct Auth<'t> {
    client_token: &'t str,
    accessor: String,
    policies: &'t [String],
    token_policies: &'t [String],
    metadata: Metadata,
    lease_duration: u64,
    renewable: bool,
    entity_id: String,
    token_type: &'static str,
    orphan: bool,
    num_uses: u64,
    mfa_requirement: Option<()>,
}

#[derive(Serialize)]
struct Metadata {
    role_name: String,
}

/// What a client gets of a session that is valid for so many seconds.
pub(super) fn auth<'t>(session: &Session, token: &'t str, policies: &'t [String], left: u64) -> Auth<'t> {
    let identity = session.identity.to_string();
    Auth {
        client_token: token,
        accessor: accessor(session),
        policies,
        token_policies: policies,
        metadata: Metadata { role_name: identity.clone() },
        lease_duration: left,
        renewable: true,
        entity_id: identity,
        token_type: "service",
        orphan: true,
        num_uses: 0,
        mfa_requirement: None,
    }
}
