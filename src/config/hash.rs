//! The hash of the settings in force.

use sha2::{Digest as _, Sha256};

use super::Config;
use crate::setting::Hash;

/// Hashes the values in force, so defaults count like what is written. Secrets do not count, since their types print
/// nothing of them, and neither does what differs from machine to machine: the address, and the files of the server's
/// certificate.
pub(super) fn of(config: &Config) -> Hash {
    let Config { admin, tls, cache, api, policy, log, keys, limits, keystore, .. } = config;
    let policies = policy.iter().map(|(name, policy)| {
        let identities = policy.identities.iter().map(|identity| identity.as_str());
        (name, sorted(&policy.allow), sorted(&policy.deny), sorted(identities))
    });
    let policies: Vec<_> = policies.collect();
    let tls = (&tls.auth, &tls.ca, &tls.proxy);
    let text = format!("{:?}", (admin, tls, cache, api, policies, log, keys, limits, keystore));
    let [a, b, c, d, e, f, ..] = <[u8; 32]>::from(Sha256::digest(text));
    Hash::new([a, b, c, d, e, f])
}

fn sorted<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut texts: Vec<_> = texts.into_iter().map(|text| text.as_ref().to_owned()).collect();
    texts.sort_unstable();
    texts
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    const BASE: &str = "address: 0.0.0.0:7373\n\
        admin: { identity: disabled }\n\
        tls: { key: a.key, cert: a.crt, password: hunter2 }\n\
        cache: { expiry: { any: 5m } }\n\
        policy: { p: { allow: [ /v1/ready, /v1/status ], identities: [ aa, bb ] } }\n\
        keystore: { vault: { endpoint: 'https://v:8200', approle: { id: role, secret: s3cret } } }\n";

    fn hash(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let (config, _) = Config::load(Path::new(file.path())).unwrap_or_else(|errors| panic!("{errors}"));
        config.hash().to_string()
    }

    #[test]
    fn it_is_the_same_for_the_same_settings_on_other_machines() {
        let base = hash(BASE);
        assert_eq!(base.len(), 12);
        for (from, to) in [
            ("0.0.0.0:7373", "10.0.0.1:7373"),
            ("a.key, cert: a.crt", "b.key, cert: b.crt"),
            ("hunter2", "another"),
            ("s3cret", "another"),
            ("any: 5m", "any: 300s"),
            ("[ /v1/ready, /v1/status ]", "[ /v1/status, /v1/ready ]"),
            ("[ aa, bb ]", "[ bb, aa ]"),
            ("cache: {", "log: { error: on }\nlimits: { connections: 10000 }\ncache: {"),
        ] {
            let changed = BASE.replace(from, to);
            assert_ne!(changed, BASE, "{from}");
            assert_eq!(hash(&changed), base, "{to}");
        }
    }

    #[test]
    fn it_differs_when_a_setting_does() {
        let base = hash(BASE);
        for (from, to) in [
            ("identity: disabled", "identity: cc"),
            ("any: 5m", "any: 6m"),
            ("/v1/ready", "/v1/key/create/*"),
            ("allow", "deny"),
            ("[ aa, bb ]", "[ aa ]"),
            ("v:8200", "w:8200"),
            ("id: role", "id: another"),
            ("hunter2", "hunter2, auth: on"),
            ("cache: {", "keys: [ { name: k } ]\ncache: {"),
        ] {
            let changed = BASE.replace(from, to);
            assert_ne!(changed, BASE, "{from}");
            assert_ne!(hash(&changed), base, "{to}");
        }
    }
}
