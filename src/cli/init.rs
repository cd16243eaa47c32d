//! `claviger init`: a working directory for a server, from nothing to the start command. Read [`run`] first.

mod directory;
mod kms;
mod server;
mod unit;

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rustls::pki_types::ServerName;

use self::directory::Directory;
use super::out::{LABEL, Out, STRONG};
use super::prompt::Questions;
use crate::auth::api_key::{ApiKey, Subject};
use crate::name::KeyName;
use crate::{clock, config};

/// How long the server's certificate is valid.
const VALID: time::Duration = time::Duration::days(365);

/// Make the directory of a server: config, certificate, identities, a first key, a unit
///
/// Asks what is not given, on a terminal. The directory must be empty, or not there: nothing is overwritten. What is
/// secret goes to files that only you can read.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory to make
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Names and addresses by which clients reach the server; the certificate is for them [default: localhost,127.0.0.1]
    #[arg(long, value_name = "NAME|IP", value_delimiter = ',', value_parser = Host::parse)]
    host: Vec<Host>,
    /// Where the server listens [default: 0.0.0.0:7373]
    #[arg(long, value_name = "IP:PORT", value_parser = config::address)]
    address: Option<SocketAddr>,
    /// The key that the object store encrypts with [default: my-key]
    #[arg(long, value_name = "NAME", value_parser = key_name)]
    key: Option<KeyName>,
    /// Make the directory of a key manager
    #[arg(long)]
    kms: bool,
    /// Do not ask: the defaults are meant
    #[arg(short, long)]
    yes: bool,
}

/// What the server is to be.
struct Wish {
    hosts: Vec<Host>,
    address: SocketAddr,
    key: KeyName,
}

/// A name or an address by which clients reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    Ip(IpAddr),
}

impl Host {
    fn parse(text: &str) -> Result<Self, String> {
        match ServerName::try_from(text.trim()) {
            Ok(ServerName::DnsName(name)) => Ok(Self::Name(name.as_ref().to_owned())),
            Ok(ServerName::IpAddress(ip)) => Ok(Self::Ip(IpAddr::from(ip))),
            _ => Err(format!("'{}' is neither a DNS name nor an IP address", text.trim())),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => write!(f, "{ip}"),
        }
    }
}

fn key_name(text: &str) -> Result<KeyName, String> {
    KeyName::parse(text.trim()).map_err(|error| error.to_string())
}

impl Wish {
    /// What the arguments say, and for the rest what somebody answers.
    fn of(args: &Args) -> anyhow::Result<Self> {
        let questions = Questions::unless(args.yes);
        let hosts = match &args.host[..] {
            [] => questions.ask(
                "Names and addresses by which clients reach the server",
                "localhost,127.0.0.1",
                |text| text.split(',').map(Host::parse).collect::<Result<Vec<_>, _>>(),
            )?,
            hosts => hosts.to_vec(),
        };
        let address = match args.address {
            Some(address) => address,
            None => questions
                .ask("Where it listens", "0.0.0.0:7373", |text| config::address(text).map_err(str::to_owned))?,
        };
        let key = match &args.key {
            Some(key) => key.clone(),
            None => questions.ask("The key that the object store encrypts with", "my-key", key_name)?,
        };
        Ok(Self { hosts, address, key })
    }

    /// The address that clients use.
    fn endpoint(&self) -> String {
        match &self.hosts[0] {
            Host::Name(name) => format!("{name}:{}", self.address.port()),
            Host::Ip(ip) => SocketAddr::new(*ip, self.address.port()).to_string(),
        }
    }

    fn hosts(&self) -> String {
        self.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The key and the certificate of the server, as `server.key` and `server.crt`.
    fn certify(&self, directory: &Directory) -> anyhow::Result<()> {
        let names =
            self.hosts.iter().filter_map(|host| if let Host::Name(name) = host { Some(name.clone()) } else { None });
        let ips = self.hosts.iter().filter_map(|host| if let Host::Ip(ip) = host { Some(*ip) } else { None });
        let subject =
            Subject { common_name: self.hosts[0].to_string(), dns: names.collect(), ip: ips.collect(), valid: VALID };
        let key = ApiKey::generate()?;
        let certificate = key.certificate_for(&subject, clock::now())?;
        directory.secret("server.key", crate::crypto::pem::pkcs8(key.private_key().secret_der()).as_bytes())?;
        directory.file("server.crt", super::identity::new::pem(&certificate).as_bytes())
    }
}

/// What was made, and what to do with it.
struct Made {
    /// Files and what they are.
    files: Vec<(String, &'static str)>,
    /// What must not be lost.
    keep: &'static str,
    /// What to type, each step with what it does.
    steps: Vec<(&'static str, Vec<String>)>,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Out) -> anyhow::Result<()> {
    let directory = Directory::make(&args.directory)?;
    let wish = Wish::of(args)?;
    let made = match args.kms {
        true => kms::make(&wish, &directory)?,
        false => server::make(&wish, &directory)?,
    };
    let path = directory.keep();
    let what = if args.kms { "a key manager" } else { "a key server" };
    let place = out.paint(STRONG, &path);
    writeln!(out, "{place} is for {what} at {}:\n", wish.endpoint())?;
    let width = made.files.iter().map(|(file, _)| file.len()).max().unwrap_or(0);
    for (file, what) in &made.files {
        writeln!(out, "  {file:<width$}  {what}")?;
    }
    writeln!(out, "\n{}", made.keep)?;
    for (what, lines) in &made.steps {
        let what = out.paint(LABEL, what);
        writeln!(out, "\n{what}:\n")?;
        lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        let host = |text| Host::parse(text).map(|host| host.to_string());
        for good in ["localhost", "keys.example.com", "10.1.2.3", "::1"] {
            assert_eq!(host(good), Ok(good.to_owned()));
        }
        assert_eq!(host(" 127.0.0.1 "), Ok("127.0.0.1".to_owned()));
        for bad in ["", "a b", "https://keys.example.com", "keys.example.com:7373", "a'b"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
