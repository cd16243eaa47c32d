//! The Vault-compatible API of the key manager: for object stores and secret tools that speak to a Vault only.
//!
//! A namespace is an enclave, a key is a transit key of it (`kms/transit.rs`), and rights are those of the enclave's
//! policies. Begin reading at [`State`]. The way of a request:
//!
//! 1. `target.rs` says what the method and the path ask for, and which right that takes.
//! 2. `credential.rs` says who asks: an API key as token, a session (`session.rs`, `login.rs`), or a client certificate.
//! 3. [`State::decide`] admits a user that has the right, before the body is read. Everybody else gets the same 403.
//! 4. `body.rs` reads the body within limits; `transit.rs`, `kv.rs`, `system.rs` and `token.rs` answer; `reply.rs` has the
//!    form of answers.
//!
//! Operators read `docs/vault-clients.md`.

mod body;
mod credential;
mod kv;
mod login;
mod reply;
mod session;
mod system;
mod target;
mod token;
mod transit;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, StatusCode};
use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Deserializer};

use self::credential::{Credential, Tokens};
use self::session::{Renewals, Session};
use self::target::{Operation, Right, Target, Use};
use crate::auth::{Caller, Denied, Identity, Requirement, admit, enclave, peer};
use crate::clock;
use crate::kms::{self, Entry, NoEntry};
use crate::name::EnclaveName;
use crate::operation;
use crate::server::path::Path;
use crate::server::{Asked, Call, Decision, Error, Handle, Reply, Route, Router, Service, Settling, Whole};
use crate::telemetry::audit::Commands;

/// The largest body, in bytes.
const MAX_BODY: u64 = 1_000_000;

/// The largest body about an entry of the key/value engine, in bytes: a document, and what stands around it.
const MAX_ENTRY: u64 = 80_000;

/// The `vault:` section of the key manager's config file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// The enclave of requests that name none; none: a request must name one.
    #[serde(default)]
    pub enclave: Option<EnclaveName>,
    /// The name of the transit engine, in every enclave.
    #[serde(default = "default_transit", deserialize_with = "mount")]
    pub transit: String,
    /// The name of the key/value engine, in every enclave; none: there is no such engine.
    #[serde(default, deserialize_with = "mount_or_off")]
    pub kv: Option<String>,
    /// How long a session lasts that nobody renews.
    #[serde(default = "default_ttl", deserialize_with = "crate::duration::deserialize")]
    pub token_ttl: Duration,
    /// How long a session lasts at most.
    #[serde(default = "default_max_ttl", deserialize_with = "crate::duration::deserialize")]
    pub token_max_ttl: Duration,
}

fn default_ttl() -> Duration {
    Duration::from_secs(3_600)
}

fn default_max_ttl() -> Duration {
    Duration::from_secs(768 * 3_600)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text };
    let advice = "not an address; write an IP address and a port, such as '0.0.0.0:8200' or '[::1]:8200'";
    full.parse().map_err(|_| serde::de::Error::custom(advice))
}

fn default_transit() -> String {
    "transit".to_owned()
}

fn mount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_valid = EnclaveName::parse(&name).is_ok() && !matches!(name.as_str(), "sys" | "auth");
    let advice = "not a name of an engine; write letters, digits, '-' or '_', and neither 'sys' nor 'auth'";
    if is_valid { Ok(name) } else { Err(serde::de::Error::custom(advice)) }
}

fn mount_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name == "off" { Ok(None) } else { mount(name.into_deserializer()).map(Some) }
}

/// The names of the engines.
#[derive(Debug, Clone)]
struct Mounts {
    transit: String,
    kv: Option<String>,
}

impl Mounts {
    /// Whether a path that begins with this segment is below an engine.
    fn have(&self, segment: &str) -> bool {
        matches!(segment, "sys" | "auth") || segment == self.transit || self.kv.as_deref() == Some(segment)
    }
}

/// The kinds of requests that metrics tell apart and that have limits of their own. The table of routes has this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Health,
    Login,
    Token,
    System,
    Keys,
    Encrypt,
    Decrypt,
    Rewrap,
    DataKey,
    Hmac,
    Verify,
    Secrets,
    Other,
}

/// All routes. Read this table to know the limits.
fn routes() -> Vec<Route<State>> {
    let route = |path| Route::new(operation::Operation::put(path), answer).max_body(MAX_BODY).all_methods();
    let table = [
        (Kind::Health, route("vault/health").max_body(0).open().vital()),
        (Kind::Login, route("vault/login").max_body(4_096)),
        (Kind::Token, route("vault/token").max_body(4_096)),
        (Kind::System, route("vault/sys").max_body(65_536)),
        (Kind::Keys, route("vault/keys").max_body(4_096)),
        (Kind::Encrypt, route("vault/encrypt")),
        (Kind::Decrypt, route("vault/decrypt")),
        (Kind::Rewrap, route("vault/rewrap")),
        (Kind::DataKey, route("vault/datakey").max_body(65_536)),
        (Kind::Hmac, route("vault/hmac")),
        (Kind::Verify, route("vault/verify")),
        (Kind::Secrets, route("vault/kv").max_body(MAX_ENTRY)),
        (Kind::Other, route("vault/other").max_body(4_096)),
    ];
    debug_assert!(table.iter().enumerate().all(|(at, (kind, _))| at == *kind as usize));
    table.into_iter().map(|(_, route)| route).collect()
}

impl Kind {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Health | Operation::SealStatus | Operation::Leader | Operation::Initialized => Self::Health,
            Operation::Login => Self::Login,
            Operation::LookupSelf | Operation::RenewSelf | Operation::RevokeSelf => Self::Token,
            Operation::Capabilities | Operation::Mount(_) => Self::System,
            Operation::ListKeys => Self::Keys,
            Operation::Secret(..) | Operation::ListSecrets(_) => Self::Secrets,
            Operation::Key(what, _) => match what {
                Use::Read | Use::Create | Use::Configure | Use::Rotate | Use::Trim | Use::Delete => Self::Keys,
                Use::Encrypt => Self::Encrypt,
                Use::Decrypt => Self::Decrypt,
                Use::Rewrap => Self::Rewrap,
                Use::DataKey(_) => Self::DataKey,
                Use::Hmac(_) => Self::Hmac,
                Use::Verify(_) => Self::Verify,
            },
            Operation::WrongMethod(_) | Operation::Unsupported | Operation::NoRoute(_) | Operation::Forbidden => {
                Self::Other
            }
        }
    }
}

/// Everything that the handlers need.
pub struct State {
    router: Router<Self>,
    kms: Arc<kms::State>,
    enclave: Option<EnclaveName>,
    mounts: Mounts,
    tokens: Tokens,
    renewals: Renewals,
    ttl: Duration,
    max_ttl: Duration,
}

impl State {
    /// A state that serves the enclaves of a key manager.
    pub fn new(kms: Arc<kms::State>, config: &Config) -> Arc<Self> {
        let router = Router::new(routes(), &BTreeMap::new());
        let mounts = Mounts { transit: config.transit.clone(), kv: config.kv.clone() };
        let renewals = Renewals::new(clock::now().unix_timestamp());
        let (enclave, tokens) = (config.enclave.clone(), Tokens::default());
        let (ttl, max_ttl) = (config.token_ttl, config.token_max_ttl);
        Arc::new(Self { router, kms, enclave, mounts, tokens, renewals, ttl, max_ttl })
    }

    /// The enclave that a request names: in its path, in a header, or not at all.
    fn enclave_of<'r>(&'r self, headers: &'r HeaderMap, in_path: Option<&'r str>) -> Result<&'r str, &'static str> {
        let header = headers.get("X-Vault-Namespace").map(|value| value.to_str().unwrap_or("?"));
        let in_header = header.map(|value| value.trim_matches('/')).filter(|name| !matches!(*name, "" | "root"));
        match (in_header, in_path) {
            (Some(_), Some(_)) => Err("it names a namespace in a namespace, and there are none"),
            (Some(name), None) | (None, Some(name)) => Ok(name),
            (None, None) => {
                let advice = "it names no namespace, and 'vault.enclave' of the config has none for such requests";
                self.enclave.as_ref().map(EnclaveName::as_str).ok_or(advice)
            }
        }
    }

    /// Admits a user that has the right.
    fn admit(&self, asked: &Asked<'_>, target: &Target, credential: Credential) -> Result<(Caller, Access), Denied> {
        let name = self.enclave_of(asked.headers, target.namespace.as_deref()).map_err(Denied::Refused)?;
        let entry = self.kms.enter(name, &credential.caller).map_err(|refused| match refused {
            NoEntry::Stranger => Denied::Refused("the enclave does not know the identity, or there is no such enclave"),
            NoEntry::Privileged => Denied::Refused(
                "the identity is an administrator, and only users with a policy may use the Vault-compatible API",
            ),
        })?;
        if let Some(session) = credential.session() {
            self.check_session(&entry, session).map_err(Denied::Refused)?;
        }
        if !is_allowed(&entry, &target.operation.right()) {
            return Err(Denied::NotAllowed { policy: entry.policy().cloned() });
        }
        self.tokens.remember(&credential);
        let caller = admit(Ok(credential.identity.clone()), Requirement::Certificate, |_| Ok(()))?;
        let wraps = wraps(asked.headers);
        Ok((caller, Access::User(Box::new(User { entry, credential, operation: target.operation.clone(), wraps }))))
    }
}

impl State {
    /// Refuses a session of another enclave, and one that has ended.
    fn check_session(&self, entry: &Entry, session: &Session) -> Result<(), &'static str> {
        if session.enclave != *entry.enclave_id() {
            return Err("the session is one of another enclave");
        }
        if entry.is_revoked(&session.hash) {
            return Err("the session was revoked");
        }
        let left = self.renewals.left(session, self.ttl, clock::now().unix_timestamp());
        left.map(|_| ()).ok_or("the session has ended")
    }
}

/// Whether a user has a right.
fn is_allowed(entry: &Entry, right: &Right) -> bool {
    match right {
        Right::Open | Right::Known => true,
        Right::Any(actions, name) => actions.iter().any(|action| entry.allows(*action, name)),
        Right::Rule(action) => entry.has_rule(*action),
        Right::Nobody => false,
    }
}

/// Whether the client wants the answer wrapped.
fn wraps(headers: &HeaderMap) -> bool {
    let ttl = headers.get("X-Vault-Wrap-TTL").map(|value| value.to_str().unwrap_or("?").trim());
    ttl.is_some_and(|ttl| !matches!(ttl, "" | "0" | "0s"))
}

/// What a request may do. Only [`State::decide`] makes one.
pub enum Access {
    /// What anybody may ask.
    Anybody(Anybody),
    /// What a user may do.
    User(Box<User>),
}

/// A request that anybody may send.
pub struct Anybody {
    operation: Operation,
    /// The enclave that it is for, or why there is none.
    enclave: Result<String, &'static str>,
}

/// A request of a user that has the right to it.
pub struct User {
    entry: Entry,
    credential: Credential,
    operation: Operation,
    wraps: bool,
}

impl Service for State {
    type Access = Access;

    fn router(&self) -> &Router<Self> {
        &self.router
    }

    fn find<'p>(&self, method: &Method, path: Path<'p>, query: &str) -> Option<(&Route<Self>, Cow<'p, str>, usize)> {
        let kind = Kind::of(&Target::parse(&self.mounts, method, path.as_str(), query).operation);
        let route = self.router.iter().nth(kind as usize)?;
        let text = path.into_text();
        let end = text.len();
        Some((route, text, end))
    }

    /// In a cluster another server may know more. Only the use of a key that is there is answered from what this one knows.
    fn settle<'s>(&'s self, asked: &Asked<'_>) -> Option<Settling<'s>> {
        if !self.kms.is_one_of_several() {
            return None;
        }
        let kms = &self.kms;
        match self.decide(asked.clone()).outcome {
            Ok((_, Access::Anybody(Anybody { operation: Operation::Login, .. }))) | Err(_) => {}
            Ok((_, Access::Anybody(_))) => return None,
            Ok((_, Access::User(user))) if user.uses_a_key() => {
                let encrypts = matches!(user.operation, Operation::Key(what, _) if what.encrypts());
                return encrypts.then(|| Box::pin(async { Ok(kms.may_encrypt().await?) }) as Settling<'s>);
            }
            Ok((_, Access::User(_))) => {}
        }
        Some(Box::pin(async { Ok(kms.confirm().await?) }))
    }

    fn decide(&self, asked: Asked<'_>) -> Decision<Access> {
        let target = Target::parse(&self.mounts, asked.method, asked.path, asked.query);
        if target.operation.right() == Right::Open {
            let caller = admit(Err(peer::Error::Missing), Requirement::None, |_| Ok(()));
            let enclave = self.enclave_of(asked.headers, target.namespace.as_deref()).map(str::to_owned);
            let access = Access::Anybody(Anybody { operation: target.operation, enclave });
            return Decision { identity: asked.peer, outcome: caller.map(|caller| (caller, access)) };
        }
        match self.tokens.credential(asked.headers, &asked.peer, &self.kms.sessions()) {
            Ok(credential) => {
                let identity = Ok(credential.identity.clone());
                Decision { identity, outcome: self.admit(&asked, &target, credential) }
            }
            Err(advice) => Decision { identity: Err(peer::Error::Missing), outcome: Err(Denied::Refused(advice)) },
        }
    }

    fn served_by(&self, server: Handle<Self>) {
        self.kms.show_beside(move |text| {
            text.of_listener("vault", |text| {
                server.write_metrics(text);
                server.write_operations(text);
            });
        });
    }

    /// There are no streams.
    fn authorize(&self, _: Result<Identity, peer::Error>, _: Requirement, _: &str) -> Result<Caller, Denied> {
        Err(Denied::Refused("the Vault-compatible API has no streams"))
    }

    fn refuse(error: &Error, _: Option<&HeaderValue>) -> Reply {
        reply::error(error.status(), error.message())
    }

    fn spell(identity: &Identity) -> Cow<'_, str> {
        enclave::Identity::of(identity).map_or(identity.as_str().into(), |identity| identity.to_string().into())
    }

    /// Whatever the reason, the text is the same.
    fn denied(_: Denied) -> Error {
        reply::denied()
    }
}

/// Answers every request.
async fn answer(call: Call<State>, body: Whole) -> Result<Reply, Error> {
    let user = match call.access() {
        Access::Anybody(Anybody { operation: Operation::Login, enclave }) => {
            return login::log_in(&call, enclave.as_deref(), body.as_ref());
        }
        Access::Anybody(Anybody { operation, .. }) => return system::open(&call, operation),
        Access::User(user) => user,
    };
    call.asks(user.commands());
    if user.wraps {
        return Err(Error::new(StatusCode::BAD_REQUEST, "response wrapping is not supported"));
    }
    let (state, body) = (call.state(), body.as_ref());
    match &user.operation {
        Operation::Key(what, name) => {
            let answered = transit::answer(state, &user.entry, *what, name.as_str(), body).await;
            match &answered {
                // Another server may have made the version that is asked for.
                Err(refused) if user.uses_a_key() && refused.status().is_client_error() => {
                    let Some(entry) = user.again(state).await? else { return answered };
                    transit::answer(state, &entry, *what, name.as_str(), body).await
                }
                _ => answered,
            }
        }
        Operation::ListKeys => transit::list(&user.entry, call.query()).await,
        Operation::Secret(what, path) => kv::answer(state, &user.entry, *what, path, (call.query(), body)).await,
        Operation::ListSecrets(folder) => kv::list(&user.entry, folder, call.query()).await,
        Operation::LookupSelf => token::look_up(state, user),
        Operation::RenewSelf => token::renew(state, user, body),
        Operation::RevokeSelf => token::revoke(state, user).await,
        Operation::Capabilities => system::capabilities(state, &user.entry, body),
        Operation::Mount(path) => system::mount(state, path),
        Operation::WrongMethod(_) => Err(reply::listed(StatusCode::METHOD_NOT_ALLOWED, "unsupported operation")),
        Operation::NoRoute(path) => Err(reply::no_route(path)),
        Operation::Unsupported => Err(reply::listed(StatusCode::NOT_FOUND, "unsupported path")),
        Operation::Health
        | Operation::SealStatus
        | Operation::Leader
        | Operation::Initialized
        | Operation::Login
        | Operation::Forbidden => Err(reply::denied()),
    }
}

impl User {
    /// Whether it encrypts, decrypts or signs with a key that is there.
    fn uses_a_key(&self) -> bool {
        match &self.operation {
            Operation::Key(what, name) => what.uses_the_key() && self.entry.key(name.as_str()).is_some(),
            _ => false,
        }
    }

    /// The same user in the newest state of the cluster; none: this is the only server, or it may not enter any more.
    async fn again(&self, state: &State) -> Result<Option<Entry>, Error> {
        if !state.kms.is_one_of_several() {
            return Ok(None);
        }
        state.kms.confirm().await?;
        Ok(state.kms.enter(self.entry.enclave(), self.entry.caller()).ok())
    }

    /// What the audit event says.
    fn commands(&self) -> Commands {
        let mut commands = Commands::of(self.entry.enclave());
        let (action, name) = match &self.operation {
            Operation::Key(what, name) => (what.actions()[0].as_str(), name.as_str()),
            Operation::ListKeys => (kms::Action::KeyList.as_str(), ""),
            Operation::Secret(what, path) => (what.action().as_str(), path.as_str()),
            Operation::ListSecrets(folder) => (kms::Action::SecretList.as_str(), folder.as_str()),
            _ => ("", ""),
        };
        commands.add(action, name, self.credential.role());
        commands
    }
}
