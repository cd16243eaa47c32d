//! Requests to key stores that answer with JSON over HTTP, and what all their answers have in common.
//!
//! A backend decides what an answer means. What it does not know is [`Error::Failed`]: only an answer that is about what
//! was asked may say that a key is there or missing.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use zeroize::Zeroizing;

use super::Error;
use super::retry::later;
use crate::crypto::buffer::{Buffer, to_json};
use crate::foreign;
use crate::http::token::{Failure, Session};
use crate::http::{self, Limit};
use crate::telemetry::log;

/// The limit of most requests: a key has some hundred bytes at most, and some stores take 64 KiB.
const USUAL: Limit = Limit { time: Duration::from_secs(5), bytes: 1024 * 1024 };

/// The limit of a page of a listing: its entries may have notes of their own.
const LARGE: Limit = Limit { time: Duration::from_secs(10), bytes: 64 * 1024 * 1024 };

/// How much of a message of others is shown, in bytes.
const MAX_MESSAGE: usize = 600;

/// One request.
pub(super) struct Ask {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<Zeroizing<Vec<u8>>>,
    limit: Limit,
}

impl Ask {
    pub(super) fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    pub(super) fn post(url: impl Into<String>) -> Self {
        Self::new(Method::POST, url)
    }

    pub(super) fn put(url: impl Into<String>) -> Self {
        Self::new(Method::PUT, url)
    }

    pub(super) fn delete(url: impl Into<String>) -> Self {
        Self::new(Method::DELETE, url)
    }

    pub(super) fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: HeaderMap::new(), body: None, limit: USUAL }
    }

    /// With a body of JSON, which has about so many bytes.
    pub(super) fn json(self, body: &impl Serialize, capacity: usize) -> Self {
        self.json_text(to_json(body, capacity))
    }

    /// With a body that is JSON already.
    pub(super) fn json_text(self, body: Zeroizing<Vec<u8>>) -> Self {
        self.body("application/json", body)
    }

    /// With the body of a form.
    pub(super) fn form(self, fields: &[(&str, &str)]) -> Self {
        let mut body = Buffer::with_capacity(fields.iter().map(|(_, value)| 3 * value.len() + 64).sum());
        for (place, (name, value)) in fields.iter().enumerate() {
            if place > 0 {
                body.push(b'&');
            }
            body.extend(name.as_bytes());
            body.push(b'=');
            utf8_percent_encode(value, NON_ALPHANUMERIC).for_each(|piece| body.extend(piece.as_bytes()));
        }
        self.body("application/x-www-form-urlencoded", body.into_inner())
    }

    fn body(mut self, kind: &'static str, body: Zeroizing<Vec<u8>>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        self.body = Some(body);
        self
    }

    /// With a large answer.
    pub(super) fn large(mut self) -> Self {
        self.limit = LARGE;
        self
    }

    /// With a header that is not secret.
    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    /// With a secret in a header, behind `scheme`.
    pub(super) fn secret(mut self, name: &HeaderName, scheme: &str, secret: &SecretString) -> Result<Self, Error> {
        let text = Zeroizing::new(format!("{scheme}{}", secret.expose_secret().trim()));
        let value = HeaderValue::from_str(&text);
        let mut value = value.map_err(|_| self.failed("the credentials have characters that none may have"))?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// With a token in the usual header.
    pub(super) fn bearer(self, token: &SecretString) -> Result<Self, Error> {
        self.secret(&AUTHORIZATION, "Bearer ", token)
    }

    /// Sends it, once.
    pub(super) async fn send(&self, client: &http::Client) -> Result<Reply, Error> {
        let answer =
            client.send(self.request()?, self.limit).await.map_err(|error| Error::Unreachable(error.into()))?;
        let http::Answer { status, headers, body } = answer;
        Ok(Reply { asked: self.name(), status: status.as_u16(), headers, body })
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, Error> {
        let body = self.body.as_ref().map_or_else(Bytes::new, |body| Bytes::from_owner(body.clone()));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.parse::<Uri>().map_err(|_| self.failed("this is no URL"))?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    /// The method and the path, for error texts.
    fn name(&self) -> String {
        let (_, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let path = rest.find('/').map_or("/", |start| &rest[start..]);
        format!("{} {path}", self.method)
    }

    /// A failure that will not pass by itself.
    pub(super) fn failed(&self, why: impl Display) -> Error {
        Error::Failed(format!("{}: {why}", self.name()).into())
    }
}

/// An answer. What it says may be secret: it is wiped.
pub(super) struct Reply {
    asked: String,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Reply {
    /// What it says, which must be an object.
    ///
    /// # Errors
    /// [`Error::Failed`] when it is not what the service `who` would say.
    pub(super) fn json<D: DeserializeOwned>(&self, who: &str) -> Result<D, Error> {
        // To the reader of an object a list is one without names.
        match self.body.trim_ascii_start().first() {
            Some(b'{') => self.parse(who),
            _ => Err(self.failed(format!("the answer is not what {who} says"))),
        }
    }

    /// The same of a list.
    pub(super) fn list<D: DeserializeOwned>(&self, who: &str) -> Result<Vec<D>, Error> {
        self.parse(who)
    }

    fn parse<D: DeserializeOwned>(&self, who: &str) -> Result<D, Error> {
        // The parser's own message may quote what it read.
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            self.failed(format!("the answer is not what {who} says (line {line}, column {column})"))
        })
    }

    /// What it says, where that is readable. For errors, which have many forms.
    pub(super) fn maybe_json<D: DeserializeOwned>(&self) -> Option<D> {
        self.json("").ok()
    }

    /// Whether this text is in it.
    pub(super) fn says(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|part| part == text.as_bytes())
    }

    /// The text of an error, for people: only where the answer cannot have a key in it.
    pub(super) fn message(&self) -> String {
        shown(&String::from_utf8_lossy(&self.body))
    }

    /// The service's time.
    pub(super) fn date(&self) -> Option<OffsetDateTime> {
        let date = self.headers.get(DATE)?.to_str().ok()?;
        // RFC 9110 says GMT, which RFC 2822 knows as +0000.
        OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok()
    }

    /// Whether a failure with this status may pass by itself.
    pub(super) fn may_pass(&self) -> bool {
        self.status >= 500 || matches!(self.status, 408 | 429)
    }

    /// A failure that will not pass by itself.
    pub(super) fn failed(&self, why: impl Display) -> Error {
        Error::Failed(self.said(why).into())
    }

    /// A failure that may pass.
    pub(super) fn unreachable(&self, why: impl Display) -> Error {
        later(self.said(why), &self.headers)
    }

    /// One of the two, by the status.
    pub(super) fn unexpected(&self, why: impl Display) -> Error {
        if self.may_pass() { self.unreachable(why) } else { self.failed(why) }
    }

    fn said(&self, why: impl Display) -> String {
        format!("{} (HTTP {}): {why}", self.asked, self.status)
    }
}

/// A message of others, as it may be shown.
pub(super) fn shown(message: &str) -> String {
    foreign::printable(&foreign::cut(message.trim(), MAX_MESSAGE))
}

/// A name or a value as a part of a URL.
pub(super) fn escaped(text: &str) -> impl Display {
    const ESCAPED: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, ESCAPED)
}

/// Sends a request with the session's token, and once more with a new one when the service refuses the old one.
pub(super) async fn with_token(
    session: &Session,
    client: &http::Client,
    ask: impl Fn(&SecretString) -> Result<Ask, Error>,
    is_refused: impl Fn(&Reply) -> bool,
) -> Result<Reply, Error> {
    let token = session.token().await?;
    let reply = ask(&token.secret)?.send(client).await?;
    if !is_refused(&reply) {
        return Ok(reply);
    }
    let token = session.replace(&token).await?;
    ask(&token.secret)?.send(client).await
}

/// Waits for no token: a sign of life needs none. Any answer counts, except that of a gateway that got none itself.
pub(super) async fn sign_of_life(client: &http::Client, url: &str) -> Result<Reply, Error> {
    let reply = Ask::get(url).send(client).await?;
    match reply.status {
        502..=504 => Err(reply.unreachable("a proxy does not reach the service, or it is down")),
        _ => Ok(reply),
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        if failure.may_pass { Self::Unreachable(failure.into()) } else { Self::Failed(failure.into()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let may_pass = matches!(error, Error::Unreachable(_));
        let cause = match error {
            Error::Unreachable(cause) | Error::Failed(cause) => log::causes(&*cause),
            other => other.to_string(),
        };
        Self { may_pass, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Reply {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Reply { asked: "GET /keys".into(), status, headers: headers.collect(), body }
    }

    #[test]
    fn a_form_is_escaped() {
        let ask = Ask::post("https://h/token").form(&[("scope", "https://x/.default"), ("secret", "a&b=\u{e4} +")]);
        let body = ask.body.expect("a form");
        assert_eq!(&body[..], b"scope=https%3A%2F%2Fx%2F%2Edefault&secret=a%26b%3D%C3%A4%20%2B");
    }

    #[test]
    fn errors_name_the_path_and_no_secret() {
        let ask = Ask::get("https://host:1/a/b?c=d").bearer(&"hunter2".into()).expect("a header");
        let error = log::causes(&ask.failed("no"));
        assert!(error.ends_with("GET /a/b?c=d: no"), "{error}");
        assert!(!format!("{:?}", ask.headers).contains("hunter2"));
        let refused = ask.bearer(&"line\nbreak".into()).err().expect("no header has one");
        assert!(!log::causes(&refused).contains("break"));
    }

    #[test]
    fn a_date_is_read() {
        let read = reply(200, &[("date", "Sun, 06 Nov 1994 08:49:37 GMT")], "").date();
        assert_eq!(read.map(OffsetDateTime::unix_timestamp), Some(784_111_777));
        for bad in [&[][..], &[("date", "yesterday")]] {
            assert_eq!(reply(200, bad, "").date(), None);
        }
    }

    #[test]
    fn what_others_say_is_cut_and_harmless() {
        let said = reply(500, &[], &format!("\u{1b}[31m{}", "x".repeat(10_000))).message();
        assert!(said.len() < 700 && !said.contains('\u{1b}'), "{said}");
        let error = reply(200, &[], "{\"secret\": hunter2}").json::<String>("the service").expect_err("no text");
        assert!(!log::causes(&error).contains("hunter2"));
    }

    #[test]
    fn an_object_is_no_list() {
        #[derive(Debug, serde::Deserialize)]
        struct Page {
            #[serde(default)]
            #[expect(dead_code, reason = "only what can be read matters")]
            names: Vec<String>,
        }
        reply(200, &[], " {}").json::<Page>("the service").expect("a page without names");
        for bad in ["", "[]", "null", "\"\"", "{"] {
            assert!(reply(200, &[], bad).json::<Page>("the service").is_err(), "{bad}");
        }
    }
}
