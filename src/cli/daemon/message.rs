//! The message that a server prints when it has started.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::auth::Identity;
use crate::config;
use crate::memory::{ALLOW_LOCK, Lock};
use crate::telemetry::audit;

/// The start message. It goes to standard error: standard output is for audit events alone.
pub(in crate::cli) struct Message(String);

impl Message {
    /// A message with the lines that every server has.
    pub(in crate::cli) fn new() -> Self {
        let mut message = Self(String::new());
        message.line("Version", &env!("CARGO_PKG_VERSION"));
        message.line("License", &env!("CARGO_PKG_LICENSE"));
        message
    }

    pub(in crate::cli) fn line(&mut self, label: &str, value: &dyn Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{label:<12}{value}");
    }

    /// The addresses at which clients reach a server that listens on `address`.
    pub(in crate::cli) fn endpoints(&mut self, label: &str, address: SocketAddr) {
        for (nth, endpoint) in endpoints(address).iter().enumerate() {
            self.line(if nth == 0 { label } else { "" }, endpoint);
        }
    }

    /// What is logged, and whether memory is locked.
    pub(in crate::cli) fn process(&mut self, log: &config::Log, lock: &Lock) {
        match log.error {
            Some(level) => self.line("Logs", &format!("error=stderr level={level}")),
            None => self.line("Logs", &"error=off"),
        }
        match log.audit.filter(|level| *level <= audit::LEVEL) {
            Some(level) => self.line("", &format!("audit=stdout level={level}")),
            None => self.line("", &"audit=off"),
        }
        if let Some(file) = &log.audit_file {
            self.line("", &format!("audit={}", file.display()));
        }
        match lock {
            Lock::Enabled => self.line("MLock", &"enabled"),
            Lock::Disabled(why) => self.line("MLock", &format!("disabled: {why}; allow it with {ALLOW_LOCK}")),
        }
    }

    /// Prints the message, and for a development server the variables to paste into a client's terminal.
    pub(in crate::cli) fn print(&self, exports: &[(&str, &str)]) -> std::io::Result<()> {
        let mut text = format!("{}\n=> Server is up and running...\n\n", self.0);
        for (name, value) in exports {
            let _ = writeln!(text, "export {name}={value}");
        }
        if !exports.is_empty() {
            text.push('\n');
        }
        std::io::stderr().write_all(text.as_bytes())
    }
}

/// The admin for display. A value that is not hexadecimal means that the admin is turned off.
pub(in crate::cli) fn admin(identity: &Identity) -> &str {
    let is_hex = identity.as_str().bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { identity.as_str() } else { "disabled" }
}

/// The addresses at which clients reach a server that listens on `address`.
pub(in crate::cli) fn endpoints(address: SocketAddr) -> Vec<String> {
    let hosts = if address.ip().is_unspecified() { local_addresses() } else { vec![address.ip()] };
    hosts.into_iter().map(|host| format!("https://{}", SocketAddr::new(host, address.port()))).collect()
}

/// The addresses of this machine, loopback first.
pub(in crate::cli) fn local_addresses() -> Vec<IpAddr> {
    let mut addresses: Vec<_> =
        if_addrs::get_if_addrs().unwrap_or_default().iter().map(if_addrs::Interface::ip).collect();
    addresses.retain(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    addresses.sort_by_key(|address| (!address.is_loopback(), address.is_ipv6()));
    addresses.dedup();
    addresses
}
