//! `keystore.…`: whether the key store answers and grants the rights that a server needs, and checks of single
//! backends.

use std::time::Duration;

use super::process::SET_CLOCK;
use super::{Report, Wanted, decrypts, fs, required, seal};
use crate::cli::units::span;
use crate::clock;
use crate::http;
use crate::keystore::{self, Access, Config, Error, KeyStore};
use crate::name::KeyName;
use crate::telemetry::log::causes;

const REACH: &str = "keystore.reach";
/// The number of status requests. The fastest answer counts as the round-trip time.
const ROUNDS: usize = 5;
/// A slower round trip delays clients noticeably when a key is not cached.
const SLOW: Duration = Duration::from_millis(200);
/// Two correct clocks differ by less than this.
const SKEW: time::Duration = time::Duration::seconds(10);

/// The section of a config file that names a key store.
pub(super) struct Section<'a> {
    pub(super) config: &'a keystore::Section,
    /// Where it stands.
    pub(super) place: String,
    /// The keys that the server creates in it.
    pub(super) keys: &'a [KeyName],
}

/// Opens the key store without making anything. Checks that it allows `access` and has what is wanted.
pub(super) async fn check(section: &Section<'_>, access: Access, wanted: &Wanted, report: &mut Report) {
    examine(section, access, wanted, report).await;
    for (host, proxy) in http::proxy::used() {
        report
            .ok("keystore.proxy", format!("{host} was reached through the proxy {proxy}, which the environment names"));
    }
}

async fn examine(section: &Section<'_>, access: Access, wanted: &Wanted, report: &mut Report) {
    for warning in section.config.encrypt.iter().flat_map(keystore::seal::Config::warnings) {
        risk(&warning, report);
    }
    if access == Access::Serve
        && let Config::Enclave(enclave) = &section.config.store
    {
        return served_by_key_manager(enclave, wanted, report);
    }
    let store = match section.config.open().await {
        Ok(Some(store)) => store,
        Ok(None) => {
            missing(section, report);
            wanted.keys.iter().for_each(|keys| required::nowhere(keys, report));
            return decrypts::nowhere(&wanted.ciphertexts, report);
        }
        Err(error) => {
            section.config.store.warnings().iter().for_each(|warning| risk(warning, report));
            return unreachable(section, &error, report);
        }
    };
    match answers(&*store).await {
        Ok(()) => report.ok(REACH, format!("{store} answers")),
        Err(error) => {
            store.about().warnings.iter().for_each(|warning| risk(warning, report));
            return unreachable(section, &error, report);
        }
    }
    store.about().warnings.iter().for_each(|warning| risk(warning, report));
    names(section.keys, store.about().names, report);
    match &section.config.store {
        Config::Fs(config) => fs::check(config, &*store, access, report).await,
        Config::Static(_) => {}
        _ => remote(&*store, access, report).await,
    }
    if section.config.encrypt.is_some() {
        seal::check(section.config, report).await;
    }
    if let Some(keys) = &wanted.keys {
        required::check(&*store, keys, report).await;
    }
    if !wanted.ciphertexts.is_empty() {
        let keys = wanted.keys.as_ref().map(|keys| keys.0.as_slice());
        decrypts::check(&*store, keys, &wanted.ciphertexts, report).await;
    }
}

/// An enclave can only be looked at through its key manager.
fn served_by_key_manager(enclave: &keystore::enclave::Config, wanted: &Wanted, report: &mut Report) {
    let name = &enclave.name;
    report.ok(REACH, format!("the keys are in the enclave '{name}' of the key manager that is started with '--kes'"));
    let message = "the keys are in a key manager, whose data only its server can open";
    if wanted.keys.is_some() {
        report.failed(required::ID, message, "ask the server: 'kms ls-key' lists its keys");
    }
    if !wanted.ciphertexts.is_empty() {
        report.failed(decrypts::ID, message, "ask the server: 'kms decrypt' opens a ciphertext");
    }
}

/// Keys that the server would create, and that this store cannot have.
fn names(keys: &[KeyName], rules: keystore::Names, report: &mut Report) {
    for (name, why) in keys.iter().filter_map(|name| (rules.refuse)(name).map(|why| (name, why))) {
        let message = format!("this key store cannot have '{name}', which 'keys' creates: {why}");
        report.failed("keystore.names", message, "choose another name, or another key store");
    }
}

fn risk(warning: &str, report: &mut Report) {
    report.warning("keystore.risk", warning.to_owned(), "do as the message says");
}

async fn answers(store: &dyn KeyStore) -> Result<(), Error> {
    store.status().await?;
    store.check(Access::Read).await
}

/// Checks a store on another machine.
async fn remote(store: &dyn KeyStore, access: Access, report: &mut Report) {
    const RIGHTS: &str = "keystore.rights";
    match store.check(access).await {
        Ok(()) => report.ok(RIGHTS, "the credentials allow what is needed"),
        Err(error) => report.failed(RIGHTS, causes(&error), "grant the rights that the message names"),
    }
    match latency(store).await {
        Ok(latency) => report_latency(latency, report),
        Err(error) => report.failed("keystore.latency", causes(&error), "run this again; the store answered before"),
    }
    match store.about().clock.await {
        Ok(Some(theirs)) => report_skew(theirs - clock::now(), report),
        Ok(None) => {}
        Err(error) => report.failed("keystore.clock", causes(&error), "run this again; the store answered before"),
    }
}

async fn latency(store: &dyn KeyStore) -> Result<Duration, Error> {
    let mut fastest = store.status().await?;
    for _ in 1..ROUNDS {
        fastest = fastest.min(store.status().await?);
    }
    Ok(fastest)
}

fn report_latency(latency: Duration, report: &mut Report) {
    const ID: &str = "keystore.latency";
    let message = format!("the fastest of {ROUNDS} answers took {}", span(latency));
    match latency > SLOW {
        false => report.ok(ID, message),
        true => {
            report.warning(ID, message, "run the server near its key store, or let keys stay in its cache for longer")
        }
    }
}

fn report_skew(skew: time::Duration, report: &mut Report) {
    const ID: &str = "keystore.clock";
    let seconds = skew.whole_seconds().unsigned_abs();
    match skew.abs() > SKEW {
        false => report.ok(ID, "the clocks here and there agree"),
        true if skew.is_positive() => {
            report.warning(ID, format!("the clock of the key store is {seconds} s ahead of ours"), SET_CLOCK);
        }
        true => report.warning(ID, format!("the clock of the key store is {seconds} s behind ours"), SET_CLOCK),
    }
}

fn missing(section: &Section<'_>, report: &mut Report) {
    report.warning(
        REACH,
        format!(
            "what {} names does not exist: a server would create it empty, and an object store would create new keys in it",
            section.place
        ),
        "correct the path, or mount what belongs there; when there are no keys yet, start the server",
    );
}

fn unreachable(section: &Section<'_>, error: &Error, report: &mut Report) {
    let message = format!("{}: {}", section.place, causes(error));
    report.failed(REACH, message, "correct what the message names; until then a server answers no request for a key");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_a_little() {
        for (skew, status, says) in [
            (0, "ok", "agree"),
            (9, "ok", "agree"),
            (-9, "ok", "agree"),
            (60, "warning", "60 s ahead"),
            (-3_600, "warning", "3600 s behind"),
        ] {
            let mut report = Report::default();
            report_skew(time::Duration::seconds(skew), &mut report);
            let said = serde_json::to_string(&report.0).expect("texts");
            assert!(said.contains(status) && said.contains(says), "{skew}: {said}");
        }
    }

    #[test]
    fn a_slow_store_is_a_warning() {
        for (latency, status) in [(1, "ok"), (1_500, "warning")] {
            let mut report = Report::default();
            report_latency(Duration::from_millis(latency), &mut report);
            assert!(serde_json::to_string(&report.0).expect("texts").contains(status), "{latency} ms");
        }
    }
}
