//! `tls.certificate`, `tls.ca`, `tls.proxy`: whether the files can be used, and for how long.

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::process::SET_CLOCK;
use super::{Report, count, some};
use crate::auth::certificate::Certificate;
use crate::cli::out::moment;
use crate::clock;
use crate::config::Config;
use crate::server::tls::ClientAuth;

/// A certificate that expires within this many days gets a warning.
const SOON: i64 = 30;

/// Loads what `tls:` names.
pub(super) fn check(config: &Config, report: &mut Report) {
    if let Err(error) = config.load_tls() {
        let (id, fix) = match error.key() {
            "tls.ca" => ("tls.ca", "name a PEM file with CA certificates, or a directory of nothing but such"),
            "tls.proxy.header.cert" => ("tls.proxy", "write the name of a header"),
            _ => (
                "tls.certificate",
                "name a PEM certificate and its private key, which this user may read; \
                 'claviger identity new --key … --cert … --ip … --dns …' makes such",
            ),
        };
        report.failed(id, error.to_string(), fix);
    }
    let now = clock::now();
    if report.is_clean("tls.certificate") {
        config.tls.chains().unwrap_or_default().iter().for_each(|chain| certificate(chain, now, report));
    }
    if report.is_clean("tls.ca") {
        authorities(&config.tls.authorities().unwrap_or_default(), config.tls.auth, now, report);
    }
}

/// Checks the server's chain. The certificate that expires first counts.
fn certificate(chain: &[CertificateDer<'_>], now: OffsetDateTime, report: &mut Report) {
    const ID: &str = "tls.certificate";
    const RENEW: &str = "renew it; a running server notices the new files by itself";
    let chain = parsed(chain);
    let Some(leaf) = chain.first() else { return };
    for early in chain.iter().filter(|certificate| certificate.not_before() > now) {
        let message = format!("'{}' is not valid before {}", early.subject(), moment(early.not_before()));
        report.failed(ID, message, SET_CLOCK);
    }
    let Some(next) = chain.iter().min_by_key(|certificate| certificate.not_after()) else { return };
    let (end, days, subject) = (moment(next.not_after()), days_left(next, now), next.subject());
    if next.not_after() < now {
        report.failed(ID, format!("'{subject}' has expired on {end}: clients refuse it"), RENEW);
    } else if days < SOON {
        let days = count(usize::try_from(days).unwrap_or(0), "day");
        report.warning(ID, format!("'{subject}' expires in {days}, on {end}"), RENEW);
    } else if report.is_clean(ID) {
        report.ok(ID, format!("expires in {days} days, is for {}", some(&leaf.hosts())));
    }
}

/// Checks the CAs of clients. While one of several has expired, clients of the others still work.
fn authorities(all: &[CertificateDer<'_>], auth: ClientAuth, now: OffsetDateTime, report: &mut Report) {
    const ID: &str = "tls.ca";
    let all = parsed(all);
    for ca in &all {
        let (end, days, subject) = (moment(ca.not_after()), days_left(ca, now), ca.subject());
        if ca.not_after() < now {
            let message = format!("'{subject}' has expired on {end}: no client of this CA is let in");
            let fix = "add the CA's new certificate, and take this one out";
            match auth == ClientAuth::On && all.iter().all(|ca| ca.not_after() < now) {
                true => report.failed(ID, message, fix),
                false => report.warning(ID, message, fix),
            }
        } else if days < SOON {
            let days = count(usize::try_from(days).unwrap_or(0), "day");
            report.warning(ID, format!("'{subject}' expires in {days}, on {end}"), "add the CA's new certificate");
        }
    }
    if let Some(next) = all.iter().min_by_key(|ca| ca.not_after()).filter(|_| report.is_clean(ID)) {
        let days = days_left(next, now);
        report.ok(ID, format!("{}, the first expires in {days} days", count(all.len(), "CA certificate")));
    }
}

fn parsed<'a>(certificates: &'a [CertificateDer<'_>]) -> Vec<Certificate<'a>> {
    certificates.iter().filter_map(|der| Certificate::parse(der).ok()).collect()
}

fn days_left(certificate: &Certificate<'_>, now: OffsetDateTime) -> i64 {
    (certificate.not_after() - now).whole_days()
}
