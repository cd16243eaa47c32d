//! `tls.certificate`, `tls.ca`, `tls.proxy`: whether the files can be used, and for how long.

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::process::SET_CLOCK;
use super::{Report, Status, count, some};
use crate::auth::certificate::Certificate;
use crate::cli::out::moment;
use crate::clock;
use crate::config::Finding;
use crate::server::tls::{ClientAuth, Config, Setting};

/// A certificate that expires within this many days gets a warning.
const SOON: i64 = 30;

const CERTIFICATE: &str = "tls.certificate";
const CA: &str = "tls.ca";

/// Looks at what a `tls:` section names; `errors` are those of loading it.
pub(super) fn check(config: &Config, errors: &[Finding], report: &mut Report) {
    let mut broken = Vec::new();
    for error in errors {
        let (id, fix) = match error.key() {
            CA => (CA, "name a PEM file of CA certificates, or a directory that holds only such files"),
            "tls.proxy.header.cert" => ("tls.proxy", "write the name of a header"),
            _ => (
                CERTIFICATE,
                "name a PEM certificate and its private key, which this user may read; \
                 'claviger identity new --key … --cert … --ip … --dns …' makes such",
            ),
        };
        report.failed(id, error.to_string(), fix);
        broken.push(id);
    }
    for Judgement { setting, status, message, fix } in judge(config, clock::now()) {
        let id = if setting == Setting::Ca { CA } else { CERTIFICATE };
        // Of files that cannot be loaded there is no more to say.
        if !broken.contains(&id) {
            report.add(id, status, message, fix);
        }
    }
}

/// What is to be said about certificates that can be loaded.
pub(in crate::cli) struct Judgement {
    /// The setting that names them.
    pub(in crate::cli) setting: Setting,
    pub(in crate::cli) status: Status,
    pub(in crate::cli) message: String,
    /// What to do.
    fix: &'static str,
}

/// Judges the certificates that a `tls:` section names by their time.
pub(in crate::cli) fn judge(config: &Config, now: OffsetDateTime) -> Vec<Judgement> {
    let mut all = Vec::new();
    for (index, chain) in config.chains().unwrap_or_default().iter().enumerate() {
        let add = |(status, message, fix)| Judgement { setting: Setting::Cert(index), status, message, fix };
        all.extend(certificate(&parsed(chain), now).into_iter().map(add));
    }
    let add = |(status, message, fix)| Judgement { setting: Setting::Ca, status, message, fix };
    let ca = config.authorities().unwrap_or_default();
    all.extend(authorities(&parsed(&ca), config.auth, now).into_iter().map(add));
    all
}

type Said = (Status, String, &'static str);

/// Checks the server's chain. The certificate that expires first counts.
fn certificate(chain: &[Certificate<'_>], now: OffsetDateTime) -> Vec<Said> {
    const RENEW: &str = "renew it; a running server notices the new files by itself";
    let Some((leaf, next)) = chain.first().zip(chain.iter().min_by_key(|certificate| certificate.not_after())) else {
        return Vec::new();
    };
    let early = chain.iter().filter(|certificate| certificate.not_before() > now);
    let mut said: Vec<Said> = early
        .map(|early| {
            let message = format!("'{}' is not valid before {}", early.subject(), moment(early.not_before()));
            (Status::Failed, message, SET_CLOCK)
        })
        .collect();
    let (end, days, subject) = (moment(next.not_after()), days_left(next, now), next.subject());
    if next.not_after() < now {
        said.push((Status::Failed, format!("'{subject}' has expired on {end}: clients refuse it"), RENEW));
    } else if days < SOON {
        let days = count(usize::try_from(days).unwrap_or(0), "day");
        said.push((Status::Warning, format!("'{subject}' expires in {days}, on {end}"), RENEW));
    } else if said.is_empty() {
        said.push((Status::Ok, format!("expires in {days} days, is for {}", some(&leaf.hosts())), ""));
    }
    said
}

/// Checks the CAs of clients. While one of several has expired, clients of the others still work.
fn authorities(all: &[Certificate<'_>], auth: ClientAuth, now: OffsetDateTime) -> Vec<Said> {
    let mut said = Vec::new();
    for ca in all {
        let (end, days, subject) = (moment(ca.not_after()), days_left(ca, now), ca.subject());
        if ca.not_after() < now {
            let message =
                format!("'{subject}' has expired on {end}: clients with a certificate of this CA are refused");
            let is_last = auth == ClientAuth::On && all.iter().all(|ca| ca.not_after() < now);
            let status = if is_last { Status::Failed } else { Status::Warning };
            said.push((status, message, "add the CA's new certificate, and take this one out"));
        } else if days < SOON {
            let days = count(usize::try_from(days).unwrap_or(0), "day");
            let message = format!("'{subject}' expires in {days}, on {end}");
            said.push((Status::Warning, message, "add the CA's new certificate"));
        }
    }
    if let Some(next) = all.iter().min_by_key(|ca| ca.not_after()).filter(|_| said.is_empty()) {
        let days = days_left(next, now);
        let message = format!("{}, the first expires in {days} days", count(all.len(), "CA certificate"));
        said.push((Status::Ok, message, ""));
    }
    said
}

fn parsed<'a>(certificates: &'a [CertificateDer<'_>]) -> Vec<Certificate<'a>> {
    certificates.iter().filter_map(|der| Certificate::parse(der).ok()).collect()
}

fn days_left(certificate: &Certificate<'_>, now: OffsetDateTime) -> i64 {
    (certificate.not_after() - now).whole_days()
}
