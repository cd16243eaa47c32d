//! Proxies on the way to key stores, as the environment names them: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, also in
//! lower case.
//!
//! A proxy makes a tunnel, whatever goes through it: it never sees a request over HTTPS.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, Write};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{CONNECT, Tls};
use crate::telemetry::log;

/// The variables, by the scheme of the address that is asked. The first that is not empty counts.
const FOR_HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const FOR_HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const FOR_NONE: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What a connector makes.
type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Each address that was reached through a proxy, and the proxy. For those who want to know how a store is reached.
static USED: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// Why there is no connection through a proxy. Nothing here says its name and password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} is not the address of a proxy: write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT")]
    NoAddress(&'static str),
    #[error(
        "the proxy {proxy} makes no connection to {host}: {cause}; have the proxy allow it, or add the host to NO_PROXY"
    )]
    Refused { proxy: String, host: String, cause: String },
}

/// Which proxies there are, and for what.
#[derive(Debug)]
struct Proxies {
    https: Proxy,
    http: Proxy,
    /// What is reached without a proxy.
    none: Matcher,
}

/// A proxy as a variable names it.
#[derive(Debug)]
enum Proxy {
    None,
    Known(Intercept),
    /// The variable with this name has another value.
    Unusable(&'static str),
}

impl Proxies {
    fn of(variables: &dyn Fn(&str) -> Option<String>) -> Self {
        let (_, none) = first(FOR_NONE, variables).unwrap_or_default();
        // Whatever it lets pass goes to some proxy.
        let none = Matcher::builder().all("http://proxy").no(none).build();
        Self { https: Proxy::of(first(FOR_HTTPS, variables)), http: Proxy::of(first(FOR_HTTP, variables)), none }
    }

    /// The proxy on the way to an address; none: there is none.
    fn on_the_way_to(&self, address: &Uri) -> Result<Option<&Intercept>, Error> {
        let host = address.host().unwrap_or_default();
        let proxy = if address.scheme_str() == Some("https") { &self.https } else { &self.http };
        match proxy {
            _ if is_near(host) || self.none.intercept(address).is_none() => Ok(None),
            Proxy::None => Ok(None),
            Proxy::Known(proxy) => Ok(Some(proxy)),
            Proxy::Unusable(variable) => Err(Error::NoAddress(variable)),
        }
    }
}

impl Proxy {
    fn of(variable: Option<(&'static str, String)>) -> Self {
        let Some((name, value)) = variable else { return Self::None };
        let any = Uri::from_static("https://host");
        let proxy = Matcher::builder().all(value).build().intercept(&any);
        match proxy.filter(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https"))) {
            Some(proxy) => Self::Known(proxy),
            None => Self::Unusable(name),
        }
    }
}

fn first(names: [&'static str; 2], variables: &dyn Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| variables(name).map(|value| (name, value)))
}

/// A variable of this process, unless it is empty.
#[expect(clippy::disallowed_methods, reason = "this is the keeper of the variables that name proxies")]
fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a host is this machine, or what clouds tell their machines at addresses that only the machine itself reaches:
/// no proxy may see the credentials that are handed out there.
fn is_near(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => match address.to_canonical() {
            IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
            // The metadata services of AWS are below fd00:ec2::.
            IpAddr::V6(address) => {
                let [first, second, ..] = address.segments();
                address.is_loopback()
                    || address.is_unspecified()
                    || address.is_unicast_link_local()
                    || (first, second) == (0xfd00, 0x0ec2)
            }
        },
        Err(_) => {
            matches!(host.as_str(), "localhost" | "metadata" | "metadata.google.internal")
                || host.ends_with(".localhost")
        }
    }
}

/// The addresses that this process has reached through proxies, each with its proxy.
pub(crate) fn used() -> Vec<(String, String)> {
    USED.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

fn note(host: &str, proxy: &str) {
    let pair = (host.to_owned(), proxy.to_owned());
    if USED.lock().unwrap_or_else(PoisonError::into_inner).insert(pair) {
        tracing::info!(host, proxy, "requests go through a proxy");
    }
}

/// Makes the connections that HTTP and TLS go over: directly, or through a proxy.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    proxies: Arc<Proxies>,
}

impl Connector {
    /// The proxies are those of this process.
    pub(super) fn new(tcp: HttpConnector) -> Self {
        Self { tcp, proxies: Arc::new(Proxies::of(&of_process)) }
    }
}

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        match self.proxies.on_the_way_to(&address) {
            Ok(None) => {
                let connecting = self.tcp.call(address);
                Box::pin(async { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Ok(Some(proxy)) => {
                let through = through(proxy.clone(), self.tcp.clone(), address);
                Box::pin(async { through.await.map_err(Into::into) })
            }
            Err(error) => Box::pin(async { Err(error.into()) }),
        }
    }
}

/// A connection to `address` through a tunnel that the proxy makes.
async fn through(proxy: Intercept, tcp: HttpConnector, address: Uri) -> Result<Connection, Error> {
    let host = format!("{}:{}", address.host().unwrap_or_default(), port(&address));
    let name = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
    let opened = match proxy.uri().scheme_str() {
        // The CAs of a key store are not those of a proxy.
        Some("https") => match Tls::default().connector() {
            Ok(tls) => open(&proxy, tls.enable_http1().wrap_connector(tcp), &host).await,
            Err(error) => Err(log::causes(&error)),
        },
        _ => open(&proxy, tcp, &host).await.map(MaybeHttpsStream::Http),
    };
    match opened {
        Ok(connection) => {
            note(&host, &name);
            Ok(connection)
        }
        Err(cause) => Err(Error::Refused { proxy: name, host, cause }),
    }
}

/// Has the proxy, which `connector` reaches, open a tunnel.
async fn open<C>(proxy: &Intercept, connector: C, host: &str) -> Result<C::Response, String>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Response: Read + Write + Unpin + Send + 'static,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
    if let Some(credentials) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(credentials.clone());
    }
    // A tunnel goes to a host and a port, whatever the scheme.
    let target = format!("https://{host}/").parse().map_err(|_| "this is no address".to_owned())?;
    match tokio::time::timeout(CONNECT, tunnel.call(target)).await {
        Ok(opened) => opened.map_err(|error| log::causes(&error)),
        Err(_) => Err(format!("no answer within {CONNECT:?}")),
    }
}

fn port(address: &Uri) -> u16 {
    let usual = if address.scheme_str() == Some("https") { 443 } else { 80 };
    address.port_u16().unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(variables: &[(&str, &str)], address: &str) -> Result<Option<String>, Error> {
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let address: Uri = address.parse().expect("an address");
        let proxies = Proxies::of(&lookup);
        Ok(proxies.on_the_way_to(&address)?.map(|proxy| proxy.uri().to_string()))
    }

    #[test]
    fn the_scheme_chooses_the_proxy_and_upper_case_comes_first() {
        let all =
            [("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:2"), ("http_proxy", "c:3"), ("HTTP_PROXY", "d")];
        let to = |count: usize, address| way(&all[..count], address).expect("usable");
        assert_eq!(to(2, "https://vault:8200").as_deref(), Some("http://a:1/"));
        assert_eq!(way(&all[1..2], "https://vault").expect("usable").as_deref(), Some("http://b:2/"));
        assert_eq!(to(2, "http://vault"), None);
        assert_eq!(to(3, "http://vault").as_deref(), Some("http://c:3/"));
        assert_eq!(to(4, "http://vault").as_deref(), Some("http://d/"));
    }

    #[test]
    fn hosts_can_be_exempt() {
        let with = |none, address| {
            way(&[("HTTPS_PROXY", "http://a:1"), ("no_proxy", none)], address).expect("usable").is_none()
        };
        for (none, address) in [
            ("vault", "https://vault:8200"),
            ("x, .example.com", "https://vault.example.com"),
            ("example.com", "https://vault.example.com"),
            ("10.0.0.0/8", "https://10.1.2.3:8200"),
            ("fd01::/16", "https://[fd01::1]:8200"),
            ("*", "https://vault"),
        ] {
            assert!(with(none, address), "{none}: {address}");
        }
        for (none, address) in
            [("", "https://vault"), ("example.com", "https://notexample.com"), ("10.0.0.0/8", "https://11.0.0.1")]
        {
            assert!(!with(none, address), "{none}: {address}");
        }
    }

    #[test]
    fn this_machine_and_metadata_are_never_asked_through_a_proxy() {
        let proxy = [("HTTPS_PROXY", "http://a:1"), ("HTTP_PROXY", "http://a:1")];
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "169.254.170.2",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "metadata.google.internal",
        ] {
            for scheme in ["http", "https"] {
                assert_eq!(way(&proxy, &format!("{scheme}://{host}:1/x")).expect("usable"), None, "{host}");
            }
        }
        for host in ["localhost.example.com", "128.0.0.1", "[fd00:ec3::254]", "metadata.example.com"] {
            assert!(way(&proxy, &format!("http://{host}:1/x")).expect("usable").is_some(), "{host}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_an_error_that_shows_nothing_of_it() {
        for value in ["socks5://user:hunter2@proxy:1", "http://user:hunter2@", "hunter2 hunter2", "ftp://hunter2"] {
            let error = way(&[("https_proxy", value)], "https://vault").expect_err(value).to_string();
            assert!(error.starts_with("https_proxy is not") && !error.contains("hunter2"), "{error}");
            assert_eq!(way(&[("https_proxy", value)], "https://localhost").expect("near"), None);
        }
        let known = way(&[("https_proxy", "http://user:hunter2@proxy:1")], "https://vault").expect("usable");
        assert_eq!(known.as_deref(), Some("http://proxy:1/"));
        let proxies = Proxies::of(&|name| (name == "HTTP_PROXY").then(|| "http://user:hunter2@proxy:1".into()));
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }
}
