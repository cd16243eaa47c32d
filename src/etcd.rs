//! A client of etcd: one cluster, whichever of its members answers.
//!
//! A call that only reads goes from member to member until one answers. A call that writes is sent once: only the caller
//! knows whether sending it again is safe. Every answer must come from the cluster that gave the first one.

pub(crate) mod config;
mod error;
mod login;
mod members;
pub mod message;
mod watch;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;
use tokio::time::Instant;
use tonic::Code;

pub use self::config::Prefix;
pub use self::error::{Error, Trouble};
pub use self::watch::{Part, Watch};

use self::error::{Judged, judge};
use self::login::{Login, Token};
use self::members::{Member, Members};
use self::message::{Answer as _, AuthenticateRequest, Call, ResponseHeader, WatchCreateRequest};
use crate::http;
use crate::setting::{ClientTls, Url};

/// Where a cluster is, and how to log in to it.
#[derive(Debug)]
pub struct Config {
    /// The members.
    pub endpoints: Vec<Url>,
    /// The user; none: the one that the client certificate names, or nobody.
    pub credentials: Option<Credentials>,
    /// Certificates.
    pub tls: ClientTls,
    /// The setting of `tls.ca`, for error texts.
    pub setting: &'static str,
    /// How long one member may take for an answer.
    pub attempt: Duration,
}

/// A user of etcd.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

/// A client of one cluster.
#[derive(Debug)]
pub struct Client {
    members: Members,
    login: Option<Login>,
    /// The cluster that gave the first answer.
    cluster: OnceLock<u64>,
    attempt: Duration,
}

impl Client {
    /// Reads certificates, and connects to nobody yet.
    ///
    /// # Errors
    /// What is wrong with the certificates.
    pub fn new(config: &Config) -> Result<Self, http::TlsError> {
        let tls = config.tls.for_http(config.setting);
        Ok(Self {
            members: Members::new(&config.endpoints, tls)?,
            login: config.credentials.clone().map(Login::new),
            cluster: OnceLock::new(),
            attempt: config.attempt,
        })
    }

    /// The id of the cluster; none: nobody has answered yet.
    pub fn cluster(&self) -> Option<u64> {
        self.cluster.get().copied()
    }

    /// How many members the config names.
    pub fn members(&self) -> usize {
        self.members.count()
    }

    /// Sends a request to each of the members. Returns where they are and what they answer.
    pub async fn ask_all<C: Call>(&self, request: &C) -> Vec<(String, Result<C::Answer, Error>)> {
        let token = self.token(None).await.ok().flatten();
        let asked = self.members.all().into_iter().map(async |member| {
            let answer = self.ask_member(&member, request, token.as_ref().and_then(|token| token.text())).await;
            (member.endpoint, answer.map_err(Error::from))
        });
        join_all(asked).await
    }

    /// Sends a request with the token of the login, and once more with a new one when it is refused.
    ///
    /// # Errors
    /// Why there is no answer, or why it is a refusal.
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Answer, Error> {
        let Some(token) = self.token(None).await? else { return Ok(self.ask(&request, None).await?) };
        match self.ask(&request, token.text()).await {
            Err(refused) if refused.is_about_token() => {
                let token = self.token(Some(&token)).await?;
                Ok(self.ask(&request, token.as_ref().and_then(|token| token.text())).await?)
            }
            answer => Ok(answer?),
        }
    }

    /// Watches keys, at one member. When it fails, another member is asked the next time.
    ///
    /// # Errors
    /// Why no member does that.
    pub async fn watch(self: &Arc<Self>, range: WatchCreateRequest) -> Result<Watch, Error> {
        let token = self.token(None).await?;
        let mut left = self.members.count();
        loop {
            left -= 1;
            let member = self.members.current();
            let watch = Watch::open(self.clone(), &member, &range, token.as_ref().and_then(|token| token.text())).await;
            match watch {
                Err(judged) if self.goes_on(&member, &judged, left) => {}
                watch => return Ok(watch?),
            }
        }
    }

    /// The token of the login, and another one if it is the `refused` one; none: there is no login.
    async fn token(&self, refused: Option<&Arc<Token>>) -> Result<Option<Arc<Token>>, Error> {
        let Some(login) = &self.login else { return Ok(None) };
        login.token(refused, |request| self.authenticate(request)).await.map(Some)
    }

    /// Whether etcd knows users at all. Without them everybody who reaches it can read and change everything.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn has_users(&self) -> Result<bool, Error> {
        // A login of nobody is refused in either case, and the refusal tells.
        let nobody = AuthenticateRequest { name: String::new(), password: String::new() };
        match self.ask(&nobody, None).await {
            Ok(_) => Ok(true),
            Err(Judged { code: Code::FailedPrecondition, .. }) => Ok(false),
            Err(Judged { error: Error::Unreachable(trouble), .. }) => Err(Error::Unreachable(trouble)),
            Err(_) => Ok(true),
        }
    }

    /// The token for a user; none: etcd knows no users, so nobody needs one.
    async fn authenticate(&self, request: AuthenticateRequest) -> Result<Option<SecretString>, Error> {
        match self.ask(&request, None).await {
            Ok(mut answer) => Ok(Some(std::mem::take(&mut answer.token).into())),
            Err(Judged { code: Code::FailedPrecondition, .. }) => Ok(None),
            Err(judged) => Err(judged.into()),
        }
    }

    /// Sends a request to the members in turn. One that writes is sent to one member only.
    async fn ask<C: Call>(&self, request: &C, token: Option<&SecretString>) -> Result<C::Answer, Judged> {
        let mut left = if request.writes() { 1 } else { self.members.count() };
        loop {
            left -= 1;
            let member = self.members.current();
            match self.ask_member(&member, request, token).await {
                Err(judged) if self.goes_on(&member, &judged, left) => {}
                answer => return answer,
            }
        }
    }

    /// Whether another member is to be asked after this failure, where so many more may be.
    fn goes_on(&self, member: &Member, judged: &Judged, left: usize) -> bool {
        let is_unreachable = matches!(judged.error, Error::Unreachable(_));
        if is_unreachable {
            self.members.leave(member);
        }
        is_unreachable && left > 0
    }

    async fn ask_member<C: Call>(
        &self,
        member: &Member,
        request: &C,
        token: Option<&SecretString>,
    ) -> Result<C::Answer, Judged> {
        let asked = Instant::now();
        let trouble = |what: String| Trouble { call: C::PATH, endpoint: member.endpoint.clone(), what };
        let answer = tokio::time::timeout(self.attempt, member.send(request.clone(), token)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => return Err(judge(&status, trouble)),
            Err(_) => return Err(Judged::unreachable(trouble(format!("no answer within {:.1?}", asked.elapsed())))),
        };
        self.pin(member, answer.header()).map_err(|what| Judged::failed(trouble(what)))?;
        Ok(answer)
    }

    /// Checks that an answer comes from the cluster that gave the first one. From now on another member is asked if not.
    fn pin(&self, member: &Member, header: Option<&ResponseHeader>) -> Result<(), String> {
        let Some(header) = header else { return Err("the answer is not one of etcd: it has no header".into()) };
        let pinned = *self.cluster.get_or_init(|| header.cluster_id);
        if header.cluster_id == pinned {
            return Ok(());
        }
        self.members.leave(member);
        Err(format!(
            "the cluster {:x} answers in place of {pinned:x}; correct the endpoints, and restart this program if etcd was \
             set up anew",
            header.cluster_id
        ))
    }
}
