//! `config`, `tls.certificate`, `tls.ca`, `files`, `hsm`, `hsm.risk`, `hsm.token`, `admin`, `cluster.…` of a key manager. Its data is not
//! opened: only one process can.

use std::path::Path;

use secrecy::ExposeSecret as _;

use super::{Report, access, cluster, config, count, private, tls};
use crate::cli::environment::{self, KMS_HSM_KEY};
use crate::cli::{input, published};
use crate::config::Examined;
use crate::config::kms::{Config, Hsm};
use crate::keystore::Seal;
use crate::keystore::seal::ProviderConfig;
use crate::kms::seal::{ENVIRONMENT, HsmKey, Provider, Providers};
use crate::telemetry::log::causes;

/// Looks at the config of a key manager, and at what it names.
pub(super) async fn examine(file: &Path, examined: Examined<Config>, report: &mut Report) {
    let Some(config) = config::judge(file, examined.whole(), report) else { return };
    let files = config.tls();
    if files.config.certs.is_empty() {
        report.ok("tls.certificate", "the server makes one beside its data");
    }
    tls::check(&files.config, &files.check(), report);
    let hsms = config.hsm.values().filter_map(|hsm| match hsm {
        Hsm::File(file) => Some(file.as_path()),
        Hsm::Provider(seal) => seal.files().into_iter().find(|(key, _)| private::is_secret(key)).map(|(_, file)| file),
    });
    private::check(files.config.certs.iter().map(|pair| pair.key.as_path()).chain(hsms), report);
    for warning in config.hsm_warnings() {
        report.warning("hsm.risk", warning.to_string(), "do as the message says");
    }
    let providers = seals(&config, report);
    tokens(&config, report).await;
    cluster::check(&config, &providers, report).await;
    let refusal = config.admin.identity.and_then(|identity| published::refusal(&identity.to_hex()));
    if let Some(why) = refusal {
        return report.failed("admin", format!("admin.identity: {why}"), access::PUBLISHED);
    }
    match &config.admin.identity {
        Some(identity) => report.ok("admin", format!("may do everything: {identity}")),
        None => report.ok("admin", "the identity that is worked out from the HSM key may do everything"),
    }
}

/// Whether the tokens of PKCS#11 work, which are on this machine.
async fn tokens(config: &Config, report: &mut Report) {
    const ID: &str = "hsm.token";
    for (name, hsm) in &config.hsm {
        let Hsm::Provider(seal) = hsm else { continue };
        if !matches!(seal.provider, ProviderConfig::Pkcs11(_)) {
            continue;
        }
        match Seal::connect(Some(seal)).await {
            Ok(seal) => {
                for warning in seal.warnings() {
                    report.warning(ID, format!("hsm.{name}: {warning}"), "do as the message says");
                }
                report.ok(ID, format!("hsm.{name}: {seal}, which opens what it seals"));
            }
            Err(error) => report.failed(ID, format!("hsm.{name}: {}", causes(&error)), "do as the message says"),
        }
    }
}

/// Whether there is anything to unseal the data with. Returns the keys that this machine has.
fn seals(config: &Config, report: &mut Report) -> Providers {
    const ID: &str = "hsm";
    const FIX: &str = "'claviger kms --soft-hsm' makes a key; keep it where backups of the data are not";
    let mut providers = Providers::new();
    if let Some(key) = environment::secret(KMS_HSM_KEY) {
        match HsmKey::parse(key.expose_secret()) {
            Ok(key) => drop(providers.insert(ENVIRONMENT.to_owned(), Provider::Hsm(key))),
            Err(error) => report.failed(ID, format!("{KMS_HSM_KEY}: {error}"), FIX),
        }
    }
    for (name, hsm) in &config.hsm {
        let Hsm::File(file) = hsm else { continue };
        let key = input::read_line(file).and_then(|key| Ok(HsmKey::parse(key.expose_secret())?));
        match key {
            Ok(key) => drop(providers.insert(name.clone(), Provider::Hsm(key))),
            Err(error) => report.failed(ID, format!("hsm.{name}: '{}': {error:#}", file.display()), FIX),
        }
    }
    let given = config.hsm.len() + usize::from(environment::secret(KMS_HSM_KEY).is_some());
    if given == 0 {
        let message = format!("neither the file nor {KMS_HSM_KEY} names anything that unseals the data");
        report.warning(ID, message, "run this with the server's environment, or name one under 'hsm'");
    } else if report.is_clean(ID) {
        report.ok(ID, format!("{} to unseal the data", count(given, "way")));
    }
    providers
}
