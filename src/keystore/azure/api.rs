//! Calls to a key vault, and what its errors mean.

use std::fmt::Display;

use hyper::Method;
use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::policy::{Right, Rights};
use crate::http;
use crate::http::token::Session;
use crate::keystore::Error;
use crate::keystore::pace::Pace;
use crate::keystore::rest::{Ask, Reply, shown, with_token};

/// The version of the API.
pub(super) const VERSION: &str = "7.4";

/// What an answer is called that is not.
pub(super) const WHO: &str = "Azure Key Vault";

/// One vault.
pub(super) struct Api {
    pub(super) client: http::Client,
    pub(super) session: Session,
    pub(super) endpoint: String,
    pub(super) rights: Rights,
    pub(super) reads: Pace,
    pub(super) writes: Pace,
}

/// A call: what right it needs, and where it goes.
pub(super) struct Call<'a> {
    pub(super) right: Right,
    method: Method,
    url: String,
    body: Option<&'a Zeroizing<Vec<u8>>>,
}

/// An error that the vault has explained.
pub(super) struct Refusal {
    pub(super) code: String,
    /// A more exact code; may be empty.
    pub(super) inner: String,
    message: String,
    reply: Reply,
    right: Right,
}

#[derive(Deserialize)]
struct Explained {
    error: Explanation,
}

#[derive(Deserialize)]
struct Explanation {
    code: String,
    #[serde(default)]
    message: String,
    innererror: Option<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    code: String,
}

impl Refusal {
    /// That it will not pass by itself.
    pub(super) fn failed(&self, advice: impl Display) -> Error {
        self.reply.failed(format!("{}{advice}", self.said()))
    }

    /// That it may pass.
    pub(super) fn unreachable(&self) -> Error {
        self.reply.unreachable(self.said())
    }

    fn said(&self) -> String {
        let code = if self.inner.is_empty() { &self.code } else { &self.inner };
        format!("{}: {}", shown(code), shown(&self.message))
    }

    /// Whether the right to the call is missing.
    pub(super) fn is_denial(&self) -> bool {
        self.reply.status == 403 && self.inner != "SecretDisabled"
    }

    /// Whether there is no such secret.
    pub(super) fn is_missing(&self) -> bool {
        self.reply.status == 404 && self.code == "SecretNotFound"
    }

    /// Whether the secret is just being deleted or recovered.
    pub(super) fn is_busy(&self) -> bool {
        self.reply.status == 409 && matches!(self.inner.as_str(), "ObjectIsBeingDeleted" | "ObjectIsBeingRecovered")
    }
}

impl<'a> Call<'a> {
    pub(super) fn with_body(mut self, body: &'a Zeroizing<Vec<u8>>) -> Self {
        self.body = Some(body);
        self
    }
}

impl Api {
    /// A call to a path, which may have a query.
    pub(super) fn at(&self, right: Right, method: Method, path: &str) -> Call<'static> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}/{path}{sign}api-version={VERSION}", self.endpoint);
        Call { right, method, url, body: None }
    }

    /// A call to the next page of a listing, wherever the vault says that is.
    pub(super) fn link(right: Right, url: String) -> Call<'static> {
        Call { right, method: Method::GET, url, body: None }
    }

    /// Sends a call when it is its turn. Errors that mean the same for every call are [`Error`]s.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Result<Reply, Refusal>, Error> {
        match self.try_call(call).await? {
            Err(refusal) if refusal.is_denial() => {
                Err(refusal.failed(self.rights.missing(refusal.right, &refusal.inner)))
            }
            answer => Ok(answer),
        }
    }

    /// The same, and a missing right is a [`Refusal`], too.
    pub(super) async fn try_call(&self, call: Call<'_>) -> Result<Result<Reply, Refusal>, Error> {
        let pace = if call.right == Right::Set { &self.writes } else { &self.reads };
        pace.turn().await;
        let ask = |token: &SecretString| call.ask().bearer(token);
        let reply = with_token(&self.session, &self.client, ask, |reply| reply.status == 401).await?;
        match reply.status {
            200 | 204 => return Ok(Ok(reply)),
            429 => {
                pace.slow_down();
                return Err(reply.unreachable("the vault throttles: too many requests"));
            }
            401 => return Err(reply.failed("the vault refuses a token that was just given for it")),
            _ => {}
        }
        let Some(Explained { error: Explanation { code, message, innererror } }) = reply.maybe_json() else {
            return Err(reply.unexpected(format!("the answer is not what {WHO} says")));
        };
        let inner = innererror.map(|inner| inner.code).unwrap_or_default();
        let refusal = Refusal { code, inner, message, reply, right: call.right };
        if refusal.reply.may_pass() { Err(refusal.unreachable()) } else { Ok(Err(refusal)) }
    }
}

impl Call<'_> {
    fn ask(&self) -> Ask {
        let ask = Ask::new(self.method.clone(), self.url.clone());
        match self.body {
            Some(body) => ask.json_text(body.clone()),
            None => ask,
        }
    }
}
