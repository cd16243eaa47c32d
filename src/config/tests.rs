//! Whole files: the example, what errors say, and that they never say a secret.

use serde_yaml::Value;

use super::*;

/// Stands wherever a secret, or a value that got into the wrong place, could stand.
const SECRET: &str = "hunter2-S3CRET";

/// The base64 of 32 bytes.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const IDENTITY: &str = "0f6e9713c38c70bbb141d2ed163fe75471242eb0f8b17c2bdea007374c0c0042";

const MINIMAL: &str = "admin: { identity: disabled }\ntls: { key: k, cert: c }\nkeystore: { fs: { path: keys } }\n";

fn environment(name: &str) -> Result<Zeroizing<String>, env::Error> {
    match name {
        "UNSET" => Err(env::Error::Unset),
        "ODD" => Err(env::Error::NotUtf8),
        "MINIO_KMS_SECRET_KEY" => Ok(Zeroizing::new(format!("my-key:{KEY}"))),
        "SECRET" => Ok(Zeroizing::new(SECRET.into())),
        _ => Ok(Zeroizing::new(format!("value-of-{name}"))),
    }
}

fn parse(text: &str) -> Result<(Config, Vec<Finding>), Errors> {
    parse_with(text, &environment)
}

fn parse_with(text: &str, lookup: Lookup<'_>) -> Result<(Config, Vec<Finding>), Errors> {
    let source = Source::parse(FilePath::new("config.yml"), text)?;
    Config::examine_source(source, lookup).whole()
}

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}\n{text}")).0
}

/// The error that the file gets when this is added to it.
fn error(more: &str) -> String {
    parse(&format!("{MINIMAL}{more}")).err().unwrap_or_else(|| panic!("no error: {more}")).to_string()
}

/// The settings as text, without what depends on where they stand in the file.
fn settings(text: &str) -> String {
    let mut config = config(text);
    config.places.clear();
    format!("{config:#?}")
}

mod example {
    use super::*;

    fn text() -> String {
        let path = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("kes-config.example.yml");
        std::fs::read_to_string(path).expect("the example")
    }

    /// Its sections that are commented out.
    fn blocks() -> Vec<String> {
        let text = text();
        let is_section = |block: &&str| block.lines().all(|line| line.starts_with("# ")) && block.contains(":\n# ");
        let blocks = text.split("\n\n").filter(is_section);
        blocks.map(|block| block.lines().map(|line| format!("{}\n", &line[2..])).collect()).collect()
    }

    /// The example with a section of it replaced.
    fn with(block: &str) -> String {
        let section = block.split(':').next().expect("a key");
        let mut kept = String::new();
        let mut inside = false;
        for line in text().lines().filter(|line| !line.starts_with('#')) {
            if !line.starts_with(' ') {
                inside = line.starts_with(&format!("{section}:"));
            }
            if !inside {
                kept.push_str(&format!("{line}\n"));
            }
        }
        kept + block
    }

    /// Without every setting that is not required. Sections stay, and have no value then.
    fn only_required(text: &str) -> String {
        let is_section = |line: &str| line.split('#').next().is_some_and(|line| line.trim_end().ends_with(':'));
        let is_kept = |line: &&str| !line.starts_with('#') && (line.contains("# required.") || is_section(line));
        text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn shows_the_defaults() {
        let text = text();
        let required = only_required(&text);
        assert_eq!(settings(&text), settings(&required));
        let (lines, kept) = (text.lines().filter(|line| !line.starts_with('#')).count(), required.lines().count());
        assert!(kept * 2 < lines, "{kept} of {lines} lines are left");
        let config = config(&text);
        assert_eq!(config.address, "0.0.0.0:7373".parse().expect("an address"));
        assert_eq!((config.limits, config.log), (Limits::default(), Log::default()));
        assert_eq!(config.cache, cache::Config::default());
    }

    #[test]
    fn shows_the_defaults_of_every_key_store() {
        let mut names = std::collections::BTreeSet::new();
        for block in blocks().iter().filter(|block| block.starts_with("keystore:")) {
            let full = with(block);
            let required = with(&only_required(block));
            assert_eq!(settings(&full), settings(&required), "{block}");
            names.insert(config(&full).keystore.store.name());
        }
        let all = [
            "aws", "azure", "dynamodb", "entrust", "etcd", "fortanix", "fs", "gcp", "gemalto", "postgres", "static",
            "vault",
        ];
        assert_eq!(names.into_iter().collect::<Vec<_>>(), all);
    }

    #[test]
    fn shows_sections_that_load() {
        let others: Vec<_> = blocks().into_iter().filter(|block| !block.starts_with("keystore:")).collect();
        assert_eq!(others.len(), 3);
        for block in others {
            let config = config(&with(&block));
            let len = config.api.len() + config.policy.len() + config.keys.len();
            assert_eq!(len, 1, "{block}");
        }
    }

    /// The settings of the example that the archived server does not have, and which of them close the way back to it.
    #[test]
    fn shows_what_the_archived_server_does_not_know() {
        let mut found = std::collections::BTreeSet::new();
        for block in blocks().iter().map(|block| with(block)).chain([text()]) {
            let source = Source::parse(FilePath::new("config.yml"), &block).expect("YAML");
            found.extend(
                kes::unknown(&source).into_iter().map(|finding| (finding.key().to_owned(), finding.is_danger())),
            );
        }
        let expected = [
            ("cache.max_entries", false),
            ("keystore.aws.secretsmanager.fips", false),
            ("keystore.dynamodb", true),
            ("keystore.encrypt", true),
            ("keystore.etcd", true),
            ("keystore.postgres", true),
            ("keystore.static", true),
            ("keystore.vault.cert", true),
            ("keystore.vault.jwt", true),
            ("keystore.vault.tls.insecure_skip_verify", false),
            ("keystore.vault.token", true),
            ("keystore.vault.userpass", true),
            ("limits", false),
            ("tls.proxy.header.form", false),
        ];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected.map(|(key, danger)| (key.to_owned(), danger)));
    }

    #[test]
    fn and_the_documentation_name_the_same_settings() {
        let path = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let documentation = std::fs::read_to_string(path).expect("the documentation");
        let keys = blocks().join("\n") + &text();
        let keys = keys.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.trim().split_once(": "));
        let mut count = 0;
        for (key, _) in
            keys.filter(|(key, value)| !key.starts_with(['-', '/']) && !value.trim_start().starts_with(['#', '{']))
        {
            count += 1;
            assert!(documentation.contains(&format!("{key}`")), "docs/configuration.md does not name '{key}'");
        }
        assert!(count > 60, "{count}");
    }
}

mod secrets {
    use super::*;

    /// Files in which every setting has a value, with secrets where secrets belong.
    fn files() -> Vec<Value> {
        let top = format!(
            "version: v1
address: 127.0.0.1:0
admin: {{ identity: {IDENTITY} }}
tls:
  key: k
  cert: c
  password: {SECRET}
  auth: off
  ca: ca
  proxy: {{ identities: [ proxy ], header: {{ cert: X-Cert }} }}
cache: {{ expiry: {{ any: 1m, unused: 1s, offline: 0s }}, max_entries: 5 }}
limits: {{ connections: 5, shutdown: 1s }}
log: {{ error: on, audit: off }}
api: {{ /v1/ready: {{ skip_auth: true, timeout: 3s }} }}
policy: {{ p: {{ allow: [ /v1/* ], deny: [ /v1/x ], identities: [ member ] }} }}
keys: [ {{ name: one }} ]
keystore:
"
        );
        let credentials = format!("{{ tenant_id: t, client_id: c, client_secret: {SECRET} }}");
        let key = rcgen::KeyPair::generate().expect("a key").serialize_der();
        let pem = crate::crypto::pem::pkcs8(&key).replace('\n', "\\n");
        let stores = [
            "fs: { path: keys }".into(),
            format!("static: {{ key: '{SECRET}:{KEY}' }}"),
            format!(
                "vault: {{ endpoint: 'https://h', engine: e, version: v2, namespace: n, prefix: p, \
                 transit: {{ engine: t, key: k }}, approle: {{ namespace: n, engine: a, id: {SECRET}, secret: {SECRET} }}, \
                 tls: {{ key: k, cert: c, ca: d }}, status: {{ ping: 1s }} }}"
            ),
            format!("vault: {{ endpoint: 'https://h', kubernetes: {{ engine: k, role: r, jwt: {SECRET} }} }}"),
            format!(
                "aws: {{ secretsmanager: {{ endpoint: e, region: r, kmskey: k, \
                 credentials: {{ accesskey: {SECRET}, secretkey: {SECRET}, token: {SECRET} }} }} }}"
            ),
            format!(
                "gcp: {{ secretmanager: {{ project_id: p, endpoint: e, scopes: [ s ], prefix: p, credentials: {{ \
                 client_email: e, client_id: '1', private_key_id: k, private_key: {pem:?} }} }}, \
                 tls: {{ ca: c }} }}"
            ),
            format!(
                "azure: {{ keyvault: {{ endpoint: 'https://h', prefix: p, credentials: {credentials} }}, tls: {{ ca: c }} }}"
            ),
            format!(
                "fortanix: {{ sdkms: {{ endpoint: 'https://h', group_id: g, prefix: p, credentials: {{ key: {SECRET} }}, tls: {{ ca: c }} }} }}"
            ),
            format!(
                "gemalto: {{ keysecure: {{ endpoint: 'https://h', prefix: p, credentials: {{ token: {SECRET}, domain: d, retry: 1s }} }} }}"
            ),
            format!(
                "entrust: {{ keycontrol: {{ endpoint: 'https://h', vault_id: v, box_id: b, \
                 credentials: {{ username: {SECRET}, password: {SECRET} }} }} }}"
            ),
            format!(
                "etcd: {{ endpoints: [ 'https://h' ], prefix: p/, credentials: {{ username: u, password: {SECRET} }}, \
                 tls: {{ key: k, cert: c, ca: d }} }}"
            ),
            format!(
                "dynamodb: {{ table: tab, partition: p, endpoint: e, region: r, \
                 credentials: {{ accesskey: {SECRET}, secretkey: {SECRET}, token: {SECRET} }}, tls: {{ ca: c }} }}"
            ),
            format!(
                "postgres: {{ hosts: [ h ], database: d, user: u, password: {SECRET}, table: t, \
                 tls: {{ key: k, cert: c, ca: d }} }}"
            ),
        ];
        stores.iter().map(|store| serde_yaml::from_str(&format!("{top}  {store}\n")).expect("YAML")).collect()
    }

    /// Calls `visit` with every file that comes of putting `wrong` in place of one value.
    fn with_each_value_replaced(value: &Value, wrong: &Value, visit: &mut dyn FnMut(Value)) {
        visit(wrong.clone());
        match value {
            Value::Mapping(map) => {
                for (key, inner) in map {
                    with_each_value_replaced(inner, wrong, &mut |changed| {
                        let mut map = map.clone();
                        map.insert(key.clone(), changed);
                        visit(Value::Mapping(map));
                    });
                }
            }
            Value::Sequence(list) => {
                for (index, inner) in list.iter().enumerate() {
                    with_each_value_replaced(inner, wrong, &mut |changed| {
                        let mut list = list.clone();
                        list[index] = changed;
                        visit(Value::Sequence(list));
                    });
                }
            }
            _ => {}
        }
    }

    /// Says everything that can be said about a file; returns whether it was an error.
    fn assert_kept(text: &str) -> bool {
        let (said, is_error) = match parse(text) {
            Err(error) => (format!("{error}\n{error:?}"), true),
            Ok((config, warnings)) => {
                let tls = config.load_tls().expect_err("no such files");
                let files = config.check_keystore_files();
                let debug = format!("{:?} {:?}", config.keystore_id, config.tls.certs[0].password);
                (format!("{warnings:?} {} {tls} {tls:?} {files:?} {debug}", join(&warnings)), false)
            }
        };
        assert!(!said.contains("hunter2"), "a secret is shown: {said}\n{text}");
        is_error
    }

    fn join(findings: &[Finding]) -> String {
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_files_are_valid() {
        for file in files() {
            assert!(!assert_kept(&serde_yaml::to_string(&file).expect("YAML")));
        }
    }

    #[test]
    fn are_not_shown_wherever_they_stand() {
        let wrongs = [
            SECRET.into(),
            format!("'{SECRET} {SECRET}'"),
            format!("'kes:v1:{SECRET}'"),
            format!("'{SECRET}://{SECRET}@host'"),
            format!("'https://user:{SECRET}@host'"),
            format!("'5{SECRET}'"),
            format!("'INFO+{SECRET}'"),
            "'${SECRET}'".into(),
            format!("'${{{SECRET}/{SECRET}}}'"),
            format!("[ {SECRET} ]"),
            format!("[ [ {SECRET} ], {{ x: {SECRET} }} ]"),
            format!("{{ x: {SECRET} }}"),
            format!("{{ 'password:{SECRET}': x }}"),
            format!("{{ '{SECRET} x': {SECRET} }}"),
        ];
        let (mut errors, mut files_tried) = (0, 0);
        for file in files() {
            for wrong in &wrongs {
                let wrong: Value = serde_yaml::from_str(wrong).expect("YAML");
                with_each_value_replaced(&file, &wrong, &mut |changed| {
                    files_tried += 1;
                    errors += usize::from(assert_kept(&serde_yaml::to_string(&changed).expect("YAML")));
                });
            }
        }
        assert!(errors > 3_000 && files_tried > errors, "{errors} errors in {files_tried} files");
    }

    #[test]
    fn are_not_shown_by_errors_of_the_syntax() {
        for wrong in [
            "tls: { password: SECRET",
            "tls: [ SECRET",
            "  x: y\n SECRET",
            "password:SECRET",
            "password: SECRET: SECRET",
            "x: 'SECRET",
            "x: \"SECRET",
            "x: \"\\qSECRET\"",
            "x: *SECRET",
            "x: &SECRET\n&SECRET",
            "x: !SECRET y",
            "x: !!int SECRET",
            "x: !!bool SECRET",
            "x: !!float 'SECRET'",
            "x: !!null SECRET",
            "x: %SECRET",
            "x: @SECRET",
            "x: `SECRET",
            "x: |SECRET",
            "\tx: SECRET",
            "? [ SECRET ]\n: x",
            "? { SECRET: x }\n: x",
            "{ SECRET }",
            "tls: { SECRET }",
            "- SECRET",
            "SECRET",
            "%TAG SECRET\n---\nx: y",
            "x: { y: SECRET, y: SECRET }",
            "x: SECRET\nx: SECRET",
            "x: { <<: SECRET }",
            "x: { <<: [ SECRET ] }",
            "x: ${UNSET}SECRET\nadmin: ${UNSET}",
            "x: ${SECRET!}",
            "x: ${ODD}\ntls: { password: SECRET }",
            "x: SECRET\u{0}",
            "root: SECRET",
            "keys: { fs: { path: SECRET } }",
            "keystore: { generic: { endpoint: SECRET } }",
            "keystore: SECRET",
            "keystore: [ SECRET ]",
            "policy: { 'SECRET x': { allow: [ x ] } }",
            "api: { '/v1/SECRET x': { skip_auth: true } }",
            "version: SECRET",
        ] {
            let text = wrong.replace("SECRET", SECRET);
            assert!(assert_kept(&text), "no error: {text}");
            assert!(assert_kept(&format!("tls: {{ password: {SECRET} }} # {SECRET}\n{text}")), "no error: {text}");
        }
    }

    #[test]
    fn are_not_shown_by_warnings() {
        let text = format!(
            "admin: {{ identity: 'kes:v1:{SECRET}' }}
tls: {{ key: k, cert: c, password: {SECRET} }}
policy: {{ p: {{ paths: [ {SECRET} ], allow: }} }}
keystore: {{ vault: {{ endpoint: 'https://h', name: {SECRET}, approle: {{ id: i, secret: {SECRET}, retry: {SECRET} }} }} }}
---
{SECRET}
"
        );
        let (_, warnings) = parse(&text).expect("valid");
        assert_eq!(warnings.len(), 6, "{}", join(&warnings));
        assert!(!assert_kept(&text));
    }

    #[test]
    fn are_not_shown_when_a_config_is_printed() {
        for file in files() {
            let config = config(&serde_yaml::to_string(&file).expect("YAML"));
            let shown = format!("{config:?}");
            // Names of accounts are no secrets, though some may hold them for such.
            let shown = shown.replace(&format!("id: \"{SECRET}\""), "").replace(&format!("username: \"{SECRET}\""), "");
            let shown = shown.replace(&format!("access_key: \"{SECRET}\""), "");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}

#[test]
fn an_address_has_an_ip_and_a_port() {
    for (text, address) in [
        ("127.0.0.1:7373", "127.0.0.1:7373"),
        ("'[::1]:1'", "[::1]:1"),
        (":80", "0.0.0.0:80"),
        ("''", "0.0.0.0:7373"),
        ("~", "0.0.0.0:7373"),
    ] {
        assert_eq!(config(&format!("{MINIMAL}address: {text}")).address.to_string(), address, "{text}");
    }
    for text in ["7373", "localhost:7373", "127.0.0.1", "127.0.0.1:99999", ":", "::1"] {
        assert!(error(&format!("address: '{text}'")).starts_with("config.yml:4:10: address: must be an IP"), "{text}");
    }
}

#[test]
fn an_identity_is_one_of_admin_proxy_and_member() {
    let with = |admin: &str, proxy: &str, policies: &str| {
        let text = format!(
            "admin: {{ identity: {admin} }}\ntls: {{ key: k, cert: c, proxy: {{ identities: [ {proxy} ] }} }}\n\
             policy: {policies}\nkeystore: {{ fs: {{ path: k }} }}\n"
        );
        parse(&text).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(with("a", "b, ''", "{ p: { identities: [ c ] }, q: { identities: [ d ] } }"), Ok(()));
    for (admin, proxy, policies, start) in [
        ("a", "b, a", "{}", "config.yml:2:46: tls.proxy.identities: "),
        ("a", "", "{ p: { identities: [ b, a ] } }", "config.yml:3:33: policy.p.identities[1]: is the admin"),
        ("a", "b", "{ p: { identities: [ b ] } }", "config.yml:3:30: policy.p.identities[0]: is a TLS proxy"),
        ("a", "", "{ p: { identities: [ b, b ] } }", "config.yml:3:33: policy.p.identities[1]: is a member"),
        (
            "a",
            "",
            "{ q: { identities: [ b ] }, p: { identities: [ b ] } }",
            "config.yml:3:30: policy.q.identities[0]: is a member of the policy 'p'",
        ),
    ] {
        let error = with(admin, proxy, policies).expect_err(policies);
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn values_come_from_the_environment_whatever_their_type() {
    let lookup = |name: &str| {
        let value = match name {
            "V" => "v1",
            "TRUE" => "true",
            "SECONDS" => "7s",
            "COUNT" => "12",
            "LEVEL" => "WARN",
            "PATTERN" => "/v1/*",
            "ID" => IDENTITY,
            "ZERO" => "0",
            _ => return Err(env::Error::Unset),
        };
        Ok(Zeroizing::new(value.into()))
    };
    let text = "version: ${V}
admin: { identity: '${ID}' }
tls: { key: \"${ID}\", cert: c, password: '${ZERO}' }
cache:
  expiry: { any: \"${SECONDS}\" }
  max_entries: ${COUNT}
api:
  /v1/ready:
    skip_auth: ${TRUE}
policy: { p: { allow: [ \"${PATTERN}\" ] } }
log: { error: \"${LEVEL}\" }
keystore: { fs: { path: '${ ID }' } }
";
    let (config, _) = parse_with(text, &lookup).expect("valid");
    assert_eq!(config.admin.as_str(), IDENTITY);
    assert_eq!((config.cache.expiry.any, config.cache.max_entries), (Duration::from_secs(7), 12));
    assert!(config.api["/v1/ready"].skip_auth);
    assert_eq!(config.policy["p"].allow, ["/v1/*"]);
    assert_eq!(config.log.error, Some(Level(4)));
    // In flow style a reference needs quotes.
    let flow = text.replace("  /v1/ready:\n    skip_auth: ${TRUE}", "  { /v1/ready: { skip_auth: '${TRUE}' } }");
    assert!(parse_with(&flow, &lookup).expect("valid").0.api["/v1/ready"].skip_auth);
    let quoted = text.replace("${TRUE}", "'true'");
    let error = parse_with(&quoted, &lookup).expect_err("a text is no truth value");
    assert_eq!(error.to_string(), "config.yml:9:16: api./v1/ready.skip_auth: must be true or false, without quotes");
}

#[test]
fn the_key_store_is_the_same_while_its_values_are() {
    let id = |keystore: &str| {
        config(&format!("admin: {{ identity: a }}\ntls: {{ key: k, cert: c }}\nkeystore: {keystore}")).keystore_id
    };
    assert_eq!(id("{ fs: { path: keys } }"), id("\n  fs:\n    path: 'keys'\n"));
    assert_ne!(id("{ fs: { path: keys } }"), id("{ fs: { path: other } }"));
    assert_ne!(id(&format!("{{ static: {{ key: 'a:{KEY}' }} }}")), id(&format!("{{ static: {{ key: 'b:{KEY}' }} }}")));
}

#[test]
fn a_migration_needs_the_key_store_only() {
    let load = |text: &str| {
        let source = Source::parse(FilePath::new("m.yml"), text);
        let loaded = source.map(|source| Config::examine_keystore(source, &environment).whole());
        loaded.expect("YAML").map(|(keystore, _)| keystore.store.name()).map_err(|error| error.to_string())
    };
    assert_eq!(load("keystore: { fs: { path: '${PATH}' } }"), Ok("fs"));
    assert_eq!(
        load(
            "admin: ${UNSET}\ntls: nonsense\nkeystore: { openbao: { endpoint: 'https://h', approle: { id: i, secret: s } } }"
        ),
        Ok("vault")
    );
    let missing = load("admin: { identity: a }").expect_err("no key store");
    assert!(missing.starts_with("m.yml:1:1: keystore: is missing"), "{missing}");
    let unset = load("keystore: { static: { key: '${UNSET}' } }").expect_err("not set");
    assert!(unset.starts_with("m.yml:1:28: keystore.static.key: the environment variable 'UNSET'"), "{unset}");
    assert!(load("keystore: { fs: { pth: x } }").is_err_and(|error| error.contains("did you mean 'path'?")));
}

#[test]
fn only_a_migration_takes_an_enclave_for_a_key_store() {
    const ENCLAVE: &str = "kms: { endpoint: [ h ], enclave: e, api_key: 'k1:x' }";
    let source = |keystore: &str| {
        let text = Zeroizing::new(MINIMAL.replace("fs: { path: keys }", keystore));
        Source::parse(FilePath::new("m.yml"), &text).expect("YAML")
    };
    let refused = |errors: Errors, place: &str, why: &str| {
        let errors = errors.to_string();
        assert!(errors.starts_with(place) && errors.contains(why) && errors.lines().count() == 1, "{errors}");
    };
    let why = "a key manager is no key store of a server";
    let server = Config::examine_source(source(ENCLAVE), &environment).whole().expect_err("refused");
    refused(server, "m.yml:3:13: keystore.kms: ", why);
    let store = Config::examine_keystore(source(ENCLAVE), &environment).whole().expect_err("refused");
    refused(store, "m.yml:3:13: keystore.kms: ", why);

    assert!(source(ENCLAVE).names_enclave() && source(&format!("fs: ~, {ENCLAVE}")).names_enclave());
    assert!(!source("fs: { path: x }").names_enclave());
    assert!(!source(&format!("fs: {{ path: x }}, {ENCLAVE}")).names_enclave(), "it is ambiguous, and refused");
    let (enclave, _) = Config::examine_enclave(source(ENCLAVE), &environment).whole().expect("valid");
    assert_eq!((enclave.endpoint, enclave.enclave.as_str()), (vec!["h".to_owned()], "e"));
    let sealed = source(&format!("{ENCLAVE}, encrypt: {{ local: {{ key: x }} }}"));
    assert!(sealed.names_enclave());
    let sealed = Config::examine_enclave(sealed, &environment).whole().expect_err("refused");
    refused(sealed, "m.yml:3:68: keystore.encrypt: ", "a key manager seals its keys itself");
}

#[test]
fn a_malformed_static_key_is_an_error_of_the_file() {
    let load = |key: &str| {
        let text = format!(
            "admin: {{ identity: a }}\ntls: {{ key: k, cert: c }}\nkeystore: {{ static: {{ key: '{key}' }} }}\n"
        );
        parse(&text).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(load(&format!("my-key:{KEY}")), Ok(()));
    for bad in [KEY, "my-key:AAEC", "my-key:?", "", &format!("a b:{KEY}")] {
        let error = load(bad).expect_err(bad);
        assert!(error.starts_with("config.yml:3:28: keystore.static.key: "), "{error}");
        assert!(!error.contains("AAEC"), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let missing = folder.path().join("none.yml");
    let error = Config::load(&missing).expect_err("no such file").to_string();
    assert!(error.starts_with(&format!("{}: the config file cannot be read", missing.display())), "{error}");
    let latin = folder.path().join("latin.yml");
    std::fs::write(&latin, b"a: b\n# caf\xe9\n").expect("written");
    let error = Config::load(&latin).expect_err("not UTF-8").to_string();
    assert_eq!(error, format!("{}:2:6: not valid UTF-8 here; save the file as UTF-8", latin.display()));
    let marked = folder.path().join("marked.yml");
    std::fs::write(&marked, format!("\u{feff}{MINIMAL}").replace('\n', "\r\n")).expect("written");
    Config::load(&marked).expect("a byte order mark and CRLF");
}

/// Every error of a text, one a line, without the file's name.
fn errors(text: &str) -> Vec<String> {
    let errors = parse(text).expect_err("it is not valid").to_string();
    errors.lines().map(|line| line.trim_start_matches("config.yml:").to_owned()).collect()
}

#[test]
fn all_errors_are_found_at_once() {
    let text = "\
version: v2
addres: 127.0.0.1:1
admin: { identity: '${UNSET}' }
tls: { kee: k, cert: c, auth: maybe }
cache: { expiry: { any: 5, unused: -1s }, max_entries: x }
policy:
  p: { allow: [ /v1/*, { a: b } ], dney: [] }
  q: { allow: x }
keys: [ { name: 'a b' }, { nam: c } ]
limits:
  shutdown: 1s
  shutdown: 2s
keystore: { fs: {} }
";
    let starts = [
        "1:10: version: ",
        "2:1: addres: unknown key; did you mean 'address'?",
        "3:20: admin.identity: the environment variable 'UNSET'",
        "4:8: tls.kee: unknown key; did you mean 'key'?",
        "4:31: tls.auth: must be 'on' or 'off'",
        "5:25: cache.expiry.any: ",
        "5:36: cache.expiry.unused: ",
        "5:56: cache.max_entries: ",
        "7:24: policy.p.allow[1]: ",
        "7:36: policy.p.dney: unknown key; did you mean 'deny'?",
        "8:15: policy.q.allow: ",
        "9:17: keys[0].name: ",
        "9:28: keys[1].nam: ",
        "12:3: limits.shutdown: stands here twice",
        "13:17: keystore.fs.path: is missing",
    ];
    let errors = errors(text);
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{error:?} instead of {start:?}");
    }
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
}

#[test]
fn what_follows_from_an_error_is_no_other() {
    for (text, count) in [
        ("[ a ]", 1),
        ("a", 1),
        ("admin: { identity: disabled }\ntls: { key: k, cert: c }\nkeystore: { fs: { path: k }, mem: {} }", 1),
        ("{}", 3),
        ("admin: x\ntls: x\nkeystore: x", 3),
        ("admin: { identity: a }\ntls: { key: k, cert: c }\nkeystore: { vault: { endpoint: nonsense } }", 1),
        ("root: a\nkeys: { fs: { path: x } }", 3),
        // Rules that span sections are looked at where the rest can be read.
        (
            "x: 1\nadmin: { identity: a }\ntls: { key: k, cert: c, proxy: { identities: [ a ] } }\nkeystore: { fs: { path: k } }",
            2,
        ),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), count, "{text}: {errors:#?}");
    }
}

/// The warnings about a text, without the file's name; and which of them are dangers.
fn warnings(more: &str) -> Vec<(String, bool)> {
    let (_, warnings) = parse(&format!("{MINIMAL}{more}")).expect("valid");
    let text = |finding: &Finding| finding.to_string().trim_start_matches("config.yml:").to_owned();
    warnings.iter().map(|finding| (text(finding), finding.is_danger())).collect()
}

#[test]
fn what_can_never_do_what_it_says_is_a_warning_with_its_place() {
    let upper = IDENTITY.to_uppercase();
    let text = format!(
        "policy:\n  p:\n    allow: [ /v1/key/craete/*, /v1/key/create/* ]\n    deny: [ /v1/key/list ]\n    identities: [ {upper}, {IDENTITY} ]\n"
    );
    let found = warnings(&text);
    let expected = [
        (
            "6:14: policy.p.allow[0]: matches no request, so nothing is allowed by it; did you mean '/v1/key/create/…'?",
            false,
        ),
        (
            "7:13: policy.p.deny[0]: matches no request, so nothing is denied by it; did you mean '/v1/key/list/…'?",
            true,
        ),
        ("8:19: policy.p.identities[0]: no client can have this identity: the letters", false),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((text, danger), (start, is_danger)) in found.iter().zip(expected) {
        assert!(text.starts_with(start) && *danger == is_danger, "{text} ({danger}) instead of {start}");
    }
}

#[test]
fn what_older_versions_knew_is_a_warning() {
    let login = "role: r, jwt: x, retry: 15s";
    let text = format!(
        "admin: {{ identity: disabled }}\nroot: disabled\ntls: {{ key: k, cert: c }}\n\
         keystore: {{ vault: {{ endpoint: 'https://h', name: x, kubernetes: {{ {login} }} }} }}\n"
    );
    let (_, warnings) = parse(&text).expect("valid");
    let keys: Vec<_> = warnings.iter().map(Finding::key).collect();
    assert_eq!(keys, ["root", "keystore.vault.name", "keystore.vault.kubernetes.retry"]);
    for (text, says) in [
        ("enclave: { default: {} }", "enclave: only KES v0.21 to 2023 had enclaves"),
        ("unseal: { environment: { name: X } }", "unseal: only KES"),
    ] {
        assert!(error(text).contains(says), "{}", error(text));
    }
}

#[test]
fn an_unknown_key_without_a_value_is_shown_where_it_is_one() {
    assert!(error("limits:\n  retry:\n").contains("limits.retry: unknown key"));
    assert!(error("limits: { retry: }").contains("limits.retry: unknown key"));
    assert!(error("limits: { hunter2 }").contains("limits.?: unknown key"));
}

#[test]
fn what_keeps_the_archived_server_from_keys_is_a_danger() {
    for (more, key, says) in [
        (
            "keystore: { aws: { secretsmanager: { prefix: kes/ } } }",
            "keystore.aws.secretsmanager.prefix",
            "without the",
        ),
        ("keystore: { gcp: { secretmanager: { prefix: kes- } } }", "keystore.gcp.secretmanager.prefix", "without the"),
        ("keystore: { openbao: { endpoint: x } }", "keystore.openbao", "'vault'"),
        ("api: { /v1/ready: { skip_auth: '${X}' } }", "api./v1/ready.skip_auth", "variables"),
        ("policy: { p: { allow: [ a, '${X}' ] } }", "policy.p.allow[1]", "variables"),
    ] {
        let source = Source::parse(FilePath::new("config.yml"), more).expect("YAML");
        let found = kes::unknown(&source);
        let [finding] = &found[..] else { panic!("{more}: {found:#?}") };
        assert!(finding.key() == key && finding.is_danger() && finding.to_string().contains(says), "{finding}");
    }
    let nothing = "{ limits: {}, keystore: { fs: { path: x }, encrypt: , aws: { secretsmanager: { prefix: '' } } } }";
    let source = Source::parse(FilePath::new("config.yml"), nothing).expect("YAML");
    assert_eq!(kes::unknown(&source), []);
}
