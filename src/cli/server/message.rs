//! What the server says when it has started.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::auth::Identity;
use crate::config;
use crate::keystore::KeyStore;
use crate::memory::{ALLOW_LOCK, Lock};
use crate::telemetry::audit;

/// The start message.
pub(super) struct Message<'a> {
    pub(super) keystore: &'a dyn KeyStore,
    pub(super) address: SocketAddr,
    pub(super) admin: &'a Identity,
    pub(super) log: config::Log,
    pub(super) lock: &'a Lock,
}

impl Message<'_> {
    /// Prints it to standard output.
    pub(super) fn print(&self) -> std::io::Result<()> {
        let text = self.text();
        write!(std::io::stdout(), "{text}\n=> Server is up and running...\n\n")
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{label:<12}{value}");
        };
        line("Version", &env!("CARGO_PKG_VERSION"));
        line("License", &env!("CARGO_PKG_LICENSE"));
        line("Key store", &self.keystore);
        for (nth, endpoint) in endpoints(self.address).iter().enumerate() {
            line(if nth == 0 { "API" } else { "" }, endpoint);
        }
        line("Admin", &admin(self.admin));
        match self.log.error {
            Some(level) => line("Logs", &format!("error=stderr level={level}")),
            None => line("Logs", &"error=off"),
        }
        match self.log.audit.filter(|level| *level <= audit::LEVEL) {
            Some(level) => line("", &format!("audit=stdout level={level}")),
            None => line("", &"audit=off"),
        }
        match self.lock {
            Lock::Enabled => line("MLock", &"enabled"),
            Lock::Disabled(why) => line("MLock", &format!("disabled: {why}; allow it with {ALLOW_LOCK}")),
        }
        text
    }
}

/// The admin as the operator knows it. Text that is no hex at all is how admin access is switched off.
pub(in crate::cli) fn admin(identity: &Identity) -> &str {
    let is_hex = identity.as_str().bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { identity.as_str() } else { "disabled" }
}

/// Where clients reach a server that listens on `address`.
pub(super) fn endpoints(address: SocketAddr) -> Vec<String> {
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
