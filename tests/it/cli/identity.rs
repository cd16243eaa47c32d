//! `identity`: keys and certificates, made and looked at.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::fixture::Fixture;

/// Checks the files `new.key` and `new.crt` that a recorded call made.
pub fn check_made(fixture: &Fixture, subject: Option<&str>, made: &Value) {
    let (key, certificate) = (fixture.directory().join("new.key"), fixture.directory().join("new.crt"));
    let mode = |path: &std::path::Path| {
        format!("0o{:o}", std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777)
    };
    let text = std::fs::read_to_string(&certificate).expect("a certificate");
    let pem = pem::parse(text).expect("PEM");
    let (_, parsed) = X509Certificate::from_der(pem.contents()).expect("a certificate");
    let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let common_name = format!("CN={}", common_name.expect("a common name"));
    let validity = parsed.validity();
    let hours = (validity.not_after.timestamp() - validity.not_before.timestamp()) as f64 / 3600.0;
    assert_eq!(made["valid_hours"], hours);
    if made["subject_is_the_identity"] == true {
        let identity = fixture.kes().run(&["identity", "of", "new.crt"]).ok();
        assert_eq!(common_name, format!("CN={identity}"));
        return;
    }
    assert_eq!(subject.map(|subject| format!("CN={subject}")).as_ref(), Some(&common_name));
    assert_eq!(made["subject"], common_name);
    assert_eq!((&made["key_mode"], &made["cert_mode"]), (&mode(&key).into(), &mode(&certificate).into()));
    let key = std::fs::read_to_string(&key).expect("a key");
    assert_eq!(made["key_pem"].as_str(), key.lines().next());
    check_extensions(&parsed, made);
}

fn check_extensions(certificate: &X509Certificate<'_>, made: &Value) {
    let names = certificate.subject_alternative_name().expect("readable").expect("there are some");
    let (mut dns, mut ip) = (Vec::new(), Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress([a, b, c, d]) => ip.push(format!("{a}.{b}.{c}.{d}")),
            other => panic!("nobody asked for {other:?}"),
        }
    }
    assert_eq!((&made["dns"], &made["ip"]), (&serde_json::json!(dns), &serde_json::json!(ip)));
    let usage = certificate.extended_key_usage().expect("readable").expect("there is one");
    assert!(usage.value.client_auth && usage.value.server_auth && !usage.critical);
    let usage = certificate.key_usage().expect("readable").expect("there is one");
    assert!(usage.critical && usage.value.digital_signature() && usage.value.flags == 1, "{usage:?}");
    let constraints = certificate.basic_constraints().expect("readable").expect("there are some");
    assert!(constraints.critical && !constraints.value.ca);
    assert_eq!(certificate.extensions().len(), 4);
}
