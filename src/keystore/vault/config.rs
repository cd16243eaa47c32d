//! The `keystore.vault` section of the config file; its other name is `keystore.openbao`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::setting::{self, Url};

/// The `keystore.vault:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// Where Vault answers.
    pub endpoint: Url,
    /// The path of the K/V engine. Default "kv".
    pub engine: String,
    /// The version of the K/V engine's API.
    pub version: Version,
    /// The namespace of the K/V engine; none: the root namespace.
    pub namespace: Option<String>,
    /// The prefix of the paths of all keys inside the engine; none: no prefix.
    pub prefix: Option<String>,
    /// Encrypts the values before they are stored; none: they are stored as they are.
    pub transit: Option<Transit>,
    /// How to log in.
    pub login: Login,
    /// Certificates.
    pub tls: Tls,
    /// How often the server checks that Vault answers. Default 10 seconds.
    pub ping: Duration,
}

/// The version of the K/V engine's API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One value a key.
    #[default]
    V1,
    /// Keeps older values.
    V2,
}

/// The `keystore.vault.transit:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transit {
    /// The path of the transit engine. Default "transit".
    #[serde(default = "transit", deserialize_with = "transit_unless_set")]
    pub engine: String,
    /// The name of the transit key.
    #[serde(deserialize_with = "setting::text")]
    pub key: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// How to log in: exactly one way.
#[derive(Debug, Clone)]
pub enum Login {
    /// With the id and the secret of a role.
    AppRole(AppRole),
    /// With the token of a Kubernetes service account.
    Kubernetes(Kubernetes),
    /// With a name and a password.
    UserPass(UserPass),
    /// With a token that another system has signed.
    Jwt(Jwt),
    /// With the client certificate of `tls`.
    Cert(Cert),
    /// With a given token, without a login.
    Token(Secret),
}

/// The `keystore.vault.approle:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "AppRoleSection")]
pub struct AppRole {
    /// The namespace of the auth method; none: that of the K/V engine.
    pub namespace: Option<String>,
    /// The path of the auth method. Default "approle".
    pub engine: String,
    /// The role's id.
    pub id: String,
    /// What the role wants to see beside its id.
    pub secret: SecretId,
}

/// A secret id.
#[derive(Debug, Clone)]
pub enum SecretId {
    /// The role needs none.
    None,
    /// The secret id itself.
    Given(SecretString),
    /// A token that can be exchanged for the secret id once.
    Wrapped(Secret),
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppRoleSection {
    namespace: Option<String>,
    #[serde(default = "approle", deserialize_with = "approle_unless_set")]
    engine: String,
    #[serde(deserialize_with = "setting::text")]
    id: String,
    #[serde(default, deserialize_with = "maybe_secret")]
    secret: Option<SecretString>,
    #[serde(default, deserialize_with = "maybe_secret_or_path")]
    wrapped: Option<Secret>,
}

impl TryFrom<AppRoleSection> for AppRole {
    type Error = &'static str;

    fn try_from(section: AppRoleSection) -> Result<Self, Self::Error> {
        let AppRoleSection { namespace, engine, id, secret, wrapped } = section;
        let secret = match (secret, wrapped) {
            (None, None) => SecretId::None,
            (Some(secret), None) => SecretId::Given(secret),
            (None, Some(token)) => SecretId::Wrapped(token),
            (Some(_), Some(_)) => return Err("has a secret id and a wrapped one; keep 'secret' or 'wrapped'"),
        };
        Ok(Self { namespace, engine, id, secret })
    }
}

/// The `keystore.vault.kubernetes:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// The namespace of the auth method; none: that of the K/V engine.
    pub namespace: Option<String>,
    /// The path of the auth method. Default "kubernetes".
    #[serde(default = "kubernetes", deserialize_with = "kubernetes_unless_set")]
    pub engine: String,
    /// The role; empty: Vault decides.
    #[serde(default)]
    pub role: String,
    /// The service account's token. In the file: the token itself, or a path, which contains a slash.
    #[serde(deserialize_with = "secret_or_path")]
    pub jwt: Secret,
}

/// The `keystore.vault.userpass:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPass {
    /// The namespace of the auth method; none: that of the K/V engine.
    pub namespace: Option<String>,
    /// The path of the auth method. Default "userpass".
    #[serde(default = "userpass", deserialize_with = "userpass_unless_set")]
    pub engine: String,
    /// The name of the user.
    #[serde(deserialize_with = "setting::text")]
    pub username: String,
    /// The user's password.
    #[serde(deserialize_with = "setting::secret")]
    pub password: SecretString,
}

/// The `keystore.vault.jwt:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The namespace of the auth method; none: that of the K/V engine.
    pub namespace: Option<String>,
    /// The path of the auth method. Default "jwt".
    #[serde(default = "jwt", deserialize_with = "jwt_unless_set")]
    pub engine: String,
    /// The role; empty: the default role of the auth method.
    #[serde(default)]
    pub role: String,
    /// The signed token. In the file: the token itself, or a path, which contains a slash.
    #[serde(deserialize_with = "secret_or_path")]
    pub jwt: Secret,
}

/// The `keystore.vault.cert:` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cert {
    /// The namespace of the auth method; none: that of the K/V engine.
    pub namespace: Option<String>,
    /// The path of the auth method. Default "cert".
    #[serde(default = "cert", deserialize_with = "cert_unless_set")]
    pub engine: String,
    /// The name of the role; empty: any whose certificate fits.
    #[serde(default)]
    pub name: String,
}

/// A secret, or a file that holds it.
#[derive(Debug, Clone)]
pub enum Secret {
    /// The secret itself.
    Inline(SecretString),
    /// The file that holds it, read again at every login.
    File(PathBuf),
}

/// The `keystore.vault.tls:` section.
#[derive(Debug, Default)]
pub struct Tls {
    /// PEM files with the private key and the certificate of the client; none: it shows no certificate.
    pub client: Option<(PathBuf, PathBuf)>,
    /// A PEM file, or a directory of PEM files, with the CAs of Vault; none: the system's.
    pub ca: Option<PathBuf>,
    /// Whether any server certificate is accepted. Default false; for tests only.
    pub insecure_skip_verify: bool,
}

/// A transit key, where it is, and how to log in there: the `keystore.encrypt.vault:` section.
#[derive(Debug, Deserialize)]
#[serde(try_from = "TransitSection")]
pub struct TransitOnly {
    /// Where Vault answers.
    pub endpoint: Url,
    /// The namespace of the transit engine; none: the root namespace.
    pub namespace: Option<String>,
    /// The key.
    pub transit: Transit,
    /// How to log in.
    pub login: Login,
    /// Certificates.
    pub tls: Tls,
}

impl Login {
    /// The setting whose value can be used once, if there is one.
    pub(super) fn works_once(&self) -> Option<&'static str> {
        let is_wrapped = matches!(self, Self::AppRole(AppRole { secret: SecretId::Wrapped(_), .. }));
        is_wrapped.then_some("approle.wrapped")
    }
}

impl TransitOnly {
    /// The setting whose value can be used once, if there is one.
    pub fn works_once(&self) -> Option<&'static str> {
        self.login.works_once()
    }

    /// The files that the section names, and the keys that name them.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        files(&self.tls, &self.login)
    }

    /// What is dangerous, or hardly meant.
    pub fn warnings(&self) -> Vec<String> {
        warnings(&self.endpoint, &self.tls)
    }
}

/// A transit engine whose keys are moved: the `keystore.transit:` section of a config file for `migrate`. It is no key
/// store, so a server cannot use it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "EngineSection")]
pub struct EngineOnly {
    /// Where Vault answers.
    pub endpoint: Url,
    /// The namespace of the transit engine; none: the root namespace.
    pub namespace: Option<String>,
    /// The path of the transit engine. Default "transit".
    pub engine: String,
    /// How to log in.
    pub login: Login,
    /// Certificates.
    pub tls: Tls,
}

impl EngineOnly {
    /// What is dangerous, or hardly meant.
    pub fn warnings(&self) -> Vec<String> {
        warnings(&self.endpoint, &self.tls)
    }
}

/// The section of a transit engine as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EngineSection {
    endpoint: Url,
    #[serde(default = "transit", deserialize_with = "transit_unless_set")]
    engine: String,
    namespace: Option<String>,
    approle: Option<AppRole>,
    kubernetes: Option<Kubernetes>,
    userpass: Option<UserPass>,
    jwt: Option<Jwt>,
    #[serde(default, deserialize_with = "section")]
    cert: Option<Cert>,
    token: Option<Token>,
    #[serde(default)]
    tls: Tls,
}

impl TryFrom<EngineSection> for EngineOnly {
    type Error = &'static str;

    fn try_from(section: EngineSection) -> Result<Self, Self::Error> {
        let EngineSection { endpoint, engine, namespace, approle, kubernetes, userpass, jwt, cert, token, tls } =
            section;
        let login = Logins { approle, kubernetes, userpass, jwt, cert, token }.only(&tls)?;
        Ok(Self { endpoint, namespace, engine, login, tls })
    }
}

pub(super) fn warnings(endpoint: &Url, tls: &Tls) -> Vec<String> {
    let skips = tls.insecure_skip_verify.then(|| {
        format!(
            "insecure_skip_verify: anybody between here and '{endpoint}' can read and change every key; remove it, and \
             name the CAs of the key store under tls.ca"
        )
    });
    let has_version = endpoint
        .as_str()
        .ends_with("/v1")
        .then(|| format!("the endpoint '{endpoint}' ends in '/v1', which is added to every request: write it without"));
    skips.into_iter().chain(endpoint.warning()).chain(has_version).collect()
}

pub(super) fn files<'a>(tls: &'a Tls, login: &'a Login) -> Vec<(&'static str, &'a Path)> {
    let mut files = Vec::new();
    if let Some((key, certificate)) = &tls.client {
        files.extend([("tls.key", key.as_path()), ("tls.cert", certificate)]);
    }
    files.extend(tls.ca.iter().map(|ca| ("tls.ca", ca.as_path())));
    match login {
        Login::AppRole(AppRole { secret: SecretId::Wrapped(Secret::File(path)), .. }) => {
            files.push(("approle.wrapped", path));
        }
        Login::Kubernetes(Kubernetes { jwt: Secret::File(path), .. }) => files.push(("kubernetes.jwt", path)),
        Login::Jwt(Jwt { jwt: Secret::File(path), .. }) => files.push(("jwt.jwt", path)),
        Login::Token(Secret::File(path)) => files.push(("token.file", path)),
        _ => {}
    }
    files
}

/// The section of a transit key as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransitSection {
    endpoint: Url,
    #[serde(default = "transit", deserialize_with = "transit_unless_set")]
    engine: String,
    #[serde(deserialize_with = "setting::text")]
    key: String,
    namespace: Option<String>,
    approle: Option<AppRole>,
    kubernetes: Option<Kubernetes>,
    userpass: Option<UserPass>,
    jwt: Option<Jwt>,
    #[serde(default, deserialize_with = "section")]
    cert: Option<Cert>,
    token: Option<Token>,
    #[serde(default)]
    tls: Tls,
}

impl TryFrom<TransitSection> for TransitOnly {
    type Error = &'static str;

    fn try_from(section: TransitSection) -> Result<Self, Self::Error> {
        let TransitSection { endpoint, engine, key, namespace, approle, kubernetes, userpass, jwt, cert, token, tls } =
            section;
        let login = Logins { approle, kubernetes, userpass, jwt, cert, token }.only(&tls)?;
        Ok(Self { endpoint, namespace, transit: Transit { engine, key }, login, tls })
    }
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    endpoint: Url,
    engine: Option<String>,
    #[serde(default, deserialize_with = "setting::or_default")]
    version: Version,
    namespace: Option<String>,
    prefix: Option<String>,
    transit: Option<Transit>,
    approle: Option<AppRole>,
    kubernetes: Option<Kubernetes>,
    userpass: Option<UserPass>,
    jwt: Option<Jwt>,
    #[serde(default, deserialize_with = "section")]
    cert: Option<Cert>,
    token: Option<Token>,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    status: Status,
}

/// The `keystore.vault.token:` section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    value: Option<SecretString>,
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Status {
    #[serde(deserialize_with = "crate::duration::deserialize")]
    ping: Duration,
}

impl Default for Status {
    fn default() -> Self {
        Self { ping: Duration::from_secs(10) }
    }
}

impl TryFrom<Section> for Config {
    type Error = &'static str;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let Section { endpoint, engine, version, namespace, prefix, transit, tls, status, .. } = section;
        let Section { approle, kubernetes, userpass, jwt, cert, token, .. } = section;
        let login = Logins { approle, kubernetes, userpass, jwt, cert, token }.only(&tls)?;
        let engine = engine.unwrap_or_else(|| "kv".into());
        Ok(Self { endpoint, engine, version, namespace, prefix, transit, login, tls, ping: status.ping })
    }
}

/// The sections of all ways to log in, of which there must be one.
struct Logins {
    approle: Option<AppRole>,
    kubernetes: Option<Kubernetes>,
    userpass: Option<UserPass>,
    jwt: Option<Jwt>,
    cert: Option<Cert>,
    token: Option<Token>,
}

impl Logins {
    fn only(self, tls: &Tls) -> Result<Login, &'static str> {
        let ways = [
            self.approle.map(|way| Ok(Login::AppRole(way))),
            self.kubernetes.map(|way| Ok(Login::Kubernetes(way))),
            self.userpass.map(|way| Ok(Login::UserPass(way))),
            self.jwt.map(|way| Ok(Login::Jwt(way))),
            self.cert.map(|way| way.with(tls).map(Login::Cert)),
            self.token.map(|token| token.secret().map(Login::Token)),
        ];
        let mut ways = ways.into_iter().flatten();
        let way = ways.next().ok_or(
            "names no way to log in; add a section 'approle', 'kubernetes', 'userpass', 'jwt' or 'cert', or 'token' for \
             a given token",
        )?;
        match ways.next() {
            None => way,
            Some(_) => {
                Err("names two ways to log in; keep one of the sections 'approle', 'kubernetes', 'userpass', 'jwt', \
                 'cert', 'token'")
            }
        }
    }
}

impl Cert {
    fn with(self, tls: &Tls) -> Result<Self, &'static str> {
        let shows_one = tls.client.is_some();
        shows_one.then_some(self).ok_or("logs in with a certificate and has none; add 'tls: { key: …, cert: … }'")
    }
}

impl Token {
    fn secret(self) -> Result<Secret, &'static str> {
        match (self.value, self.file) {
            (Some(value), None) => Ok(Secret::Inline(value)),
            (None, Some(file)) => Ok(Secret::File(file)),
            _ => Err("needs a token; write 'token: { value: … }' or 'token: { file: … }'"),
        }
    }
}

impl<'de> Deserialize<'de> for Tls {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Section {
            key: Option<PathBuf>,
            cert: Option<PathBuf>,
            ca: Option<PathBuf>,
            #[serde(default)]
            insecure_skip_verify: bool,
        }
        let section = Section::deserialize(deserializer)?;
        let client = match (section.key, section.cert) {
            (Some(key), Some(cert)) => Some((key, cert)),
            (None, None) => None,
            (Some(_), None) => return Err(serde::de::Error::custom("has 'key' and no 'cert'; give both or neither")),
            (None, Some(_)) => return Err(serde::de::Error::custom("has 'cert' and no 'key'; give both or neither")),
        };
        Ok(Self { client, ca: section.ca, insecure_skip_verify: section.insecure_skip_verify })
    }
}

fn transit() -> String {
    "transit".into()
}

fn transit_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(transit, deserializer)
}

fn approle() -> String {
    "approle".into()
}

fn approle_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(approle, deserializer)
}

fn kubernetes() -> String {
    "kubernetes".into()
}

fn kubernetes_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(kubernetes, deserializer)
}

fn userpass() -> String {
    "userpass".into()
}

fn userpass_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(userpass, deserializer)
}

fn jwt() -> String {
    "jwt".into()
}

fn jwt_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(jwt, deserializer)
}

fn cert() -> String {
    "cert".into()
}

fn cert_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(cert, deserializer)
}

/// Reads a section that is there even when nothing stands in it.
fn section<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn maybe_secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    setting::secret(deserializer).map(Some)
}

fn maybe_secret_or_path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    secret_or_path(deserializer).map(Some)
}

/// No token contains a slash: its characters are those of base64url, and dots.
fn secret_or_path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    let secret = setting::secret(deserializer)?;
    let is_path = secret.expose_secret().contains('/');
    Ok(if is_path { Secret::File(secret.expose_secret().into()) } else { Secret::Inline(secret) })
}
