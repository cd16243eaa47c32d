//! Calls to Secret Manager, and what its errors mean. The service's own word for an error decides: one HTTP status
//! stands for several.

use std::fmt::Display;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::policy::{Right, Rights};
use crate::http;
use crate::http::token::Session;
use crate::keystore::Error;
use crate::keystore::pace::Pace;
use crate::keystore::rest::{Ask, Reply, shown, with_token};

/// What an answer is called that is not.
pub(super) const WHO: &str = "Google Secret Manager";

/// Secret Manager of one project.
pub(super) struct Api {
    pub(super) client: http::Client,
    pub(super) session: Session,
    /// `<endpoint>/v1/projects/<project>`
    pub(super) project: String,
    pub(super) rights: Rights,
    pub(super) reads: Pace,
    pub(super) writes: Pace,
}

/// A call: a method, a path below the project, and what right it needs.
pub(super) struct Call<'a, B> {
    pub(super) right: Right,
    pub(super) path: String,
    pub(super) body: Option<&'a B>,
}

/// No body.
pub(super) type Nothing = Call<'static, ()>;

impl Nothing {
    pub(super) fn new(right: Right, path: String) -> Self {
        Self { right, path, body: None }
    }
}

/// An error that the service itself has explained.
pub(super) struct Refusal {
    pub(super) status: String,
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
    status: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// That it will not pass by itself.
    pub(super) fn failed(&self, advice: impl Display) -> Error {
        self.reply.failed(format!("{}: {}{advice}", shown(&self.status), shown(&self.message)))
    }

    fn unreachable(&self) -> Error {
        self.reply.unreachable(format!("{}: {}", shown(&self.status), shown(&self.message)))
    }

    /// Whether the right to the call is missing.
    pub(super) fn is_denial(&self) -> bool {
        self.status == "PERMISSION_DENIED"
    }
}

impl Api {
    /// Sends a call when it is its turn. Errors that mean the same for every call are [`Error`]s.
    pub(super) async fn call<B: Serialize + Sync>(&self, call: Call<'_, B>) -> Result<Result<Reply, Refusal>, Error> {
        match self.try_call(call).await? {
            Err(refusal) if refusal.is_denial() => Err(refusal.failed(self.rights.missing(refusal.right))),
            answer => Ok(answer),
        }
    }

    /// The same, and a missing right is a [`Refusal`], too.
    pub(super) async fn try_call<B: Serialize + Sync>(
        &self,
        call: Call<'_, B>,
    ) -> Result<Result<Reply, Refusal>, Error> {
        let pace = if call.right.writes() { &self.writes } else { &self.reads };
        pace.turn().await;
        let ask = |token: &SecretString| self.ask(&call)?.bearer(token);
        let reply = with_token(&self.session, &self.client, ask, |reply| reply.status == 401).await?;
        if reply.status == 200 {
            return Ok(Ok(reply));
        }
        let Some(Explained { error: Explanation { status, message } }) = reply.maybe_json() else {
            return Err(reply.unexpected(format!("the answer is not what {WHO} says")));
        };
        let refusal = Refusal { status, message, reply, right: call.right };
        match refusal.status.as_str() {
            "RESOURCE_EXHAUSTED" => {
                pace.slow_down();
                Err(refusal.unreachable())
            }
            "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "ABORTED" | "INTERNAL" | "UNKNOWN" => Err(refusal.unreachable()),
            "UNAUTHENTICATED" => Err(refusal
                .failed("; the service account or its key is gone or disabled, or this machine's clock is wrong")),
            _ => Ok(Err(refusal)),
        }
    }

    fn ask<B: Serialize>(&self, Call { right, path, body }: &Call<'_, B>) -> Result<Ask, Error> {
        let url = format!("{}/{path}", self.project);
        let ask = match right {
            Right::Create | Right::Add => Ask::post(url),
            Right::Delete => Ask::delete(url),
            Right::List => Ask::get(url).large(),
            Right::Access => Ask::get(url),
        };
        Ok(match body {
            // A value in base64, and some names of fields.
            Some(body) => ask.json(body, 96 * 1024),
            None => ask,
        })
    }
}
