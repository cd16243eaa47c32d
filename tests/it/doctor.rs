//! `claviger doctor`: finds each thing that is wrong, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::support::certificates::Authority;
use super::support::peer;
use super::support::program::{Outcome, Program};
use super::support::terminal::{Terminal, plain};
use super::support::testdata;

const ADMIN: &str = "614916aaeed73669a19723356353b71580129b6c4be54ca554ce30820cee62ae";
const APP: &str = "0585a2c47b1272c9f9d17aed16d96e9e89881d137cabc57023cef379558e708b";

/// A config that has nothing wrong.
const CONFIG: &str = "\
admin: { identity: ADMIN }
tls: { key: server.key, cert: server.crt }
cache: { expiry: { offline: 24h } }
policy:
  app: { allow: [ /v1/key/generate/my-* ], identities: [ APP ] }
keystore: { fs: { path: keys } }
";

/// A server's directory, for which nobody has started a server yet.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        let directory = Self(tempfile::tempdir().expect("a temporary directory"));
        fs::create_dir(directory.path("keys")).expect("a directory");
        directory.add_key("my-key");
        directory.configure(|config| config);
        directory.certify(-Duration::DAY, Duration::days(90));
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Adds a key of the fixture.
    fn add_key(&self, name: &str) {
        let path = self.path("keys").join(name);
        fs::copy(testdata("http/fixture/keys").join(name), &path).expect("copied");
        set_mode(&path, 0o600);
    }

    fn configure(&self, change: impl FnOnce(String) -> String) {
        let config = change(CONFIG.into()).replace("ADMIN", ADMIN).replace("APP", APP);
        fs::write(self.path("config.yml"), config).expect("written");
    }

    /// Writes a certificate that is valid from one moment until another, both counted from now.
    fn certify(&self, from: Duration, until: Duration) {
        let mut params = CertificateParams::new(vec!["keys.example.com".into()]).expect("a name");
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now + from, now + until);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(self.path("server.key"), key.serialize_pem()).expect("written");
        set_mode(&self.path("server.key"), 0o600);
        fs::write(self.path("server.crt"), certificate.pem()).expect("written");
    }

    fn program(&self) -> Program {
        Program::named("claviger", self.0.path())
    }

    /// What it finds; sees to it that nothing is changed.
    fn examine(&self) -> Findings {
        self.examine_with(&[])
    }

    /// The same with more arguments.
    fn examine_with(&self, args: &[&str]) -> Findings {
        let before = tree(self.0.path());
        let outcome = self.program().run(&[&["doctor", "--config", "config.yml", "--json"], args].concat());
        assert_eq!(tree(self.0.path()), before, "nothing is made, changed or removed");
        Findings::of(outcome)
    }
}

/// What was found.
#[derive(Debug)]
struct Findings {
    checks: Vec<Value>,
    exit: Option<i32>,
}

impl Findings {
    fn of(outcome: Outcome) -> Self {
        let checks: Vec<Value> = serde_json::from_str(&outcome.stdout).expect("one JSON array and nothing else");
        let failed = checks.iter().filter(|check| check["status"] == "failed").count();
        assert_eq!(outcome.exit, Some(i32::from(failed > 0)), "{checks:#?}");
        for check in &checks {
            let fields = check.as_object().expect("an object");
            assert!(fields.values().all(Value::is_string), "{check}");
            let expected: &[&str] = match check["status"].as_str() {
                Some("ok") => &["id", "status", "message"],
                Some("warning" | "failed") => &["id", "status", "message", "fix"],
                other => panic!("no such status: {other:?}"),
            };
            assert_eq!(fields.keys().collect::<Vec<_>>(), expected);
        }
        Self { checks, exit: outcome.exit }
    }

    /// Ids of what is not ok, each with its status.
    fn troubles(&self) -> Vec<(&str, &str)> {
        let checks = self.checks.iter().map(|check| (unwrapped(check, "id"), unwrapped(check, "status")));
        checks.filter(|(_, status)| *status != "ok").collect()
    }

    /// Asserts that a check's messages contain a text.
    #[track_caller]
    fn says(&self, id: &str, text: &str) {
        let messages = self.checks.iter().filter(|check| check["id"] == id).map(|check| unwrapped(check, "message"));
        let messages: Vec<_> = messages.collect();
        assert!(messages.iter().any(|message| message.contains(text)), "{id} does not say {text:?}: {messages:#?}");
    }
}

fn unwrapped<'v>(check: &'v Value, field: &str) -> &'v str {
    check[field].as_str().expect("a text")
}

/// Every file below a directory: its mode, owner, change time and content.
fn tree(directory: &Path) -> BTreeMap<PathBuf, (u32, u32, i64, i64, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(path) = rest.pop() {
        let found = fs::symlink_metadata(&path).expect("there");
        let mut content = Vec::new();
        if found.is_dir() {
            rest.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else {
            content = fs::read(&path).expect("readable");
        }
        files.insert(path, (found.mode(), found.uid(), found.ctime(), found.ctime_nsec(), content));
    }
    files
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode is set");
}

#[test]
fn a_healthy_server_has_nothing_wrong() {
    let found = Directory::new().examine();
    // Whether memory can be locked is this machine's business.
    let troubles: Vec<_> = found.troubles().into_iter().filter(|(id, _)| *id != "memory.lock").collect();
    assert_eq!((troubles, found.exit), (vec![], Some(0)));
    let ids: Vec<_> = found.checks.iter().map(|check| unwrapped(check, "id")).collect();
    let expected = [
        "core.dumps",
        "memory.lock",
        "clock",
        "config",
        "tls.certificate",
        "files",
        "keystore.reach",
        "fs.rights",
        "fs.foreign",
        "fs.keys",
        "fs.leftovers",
        "cache",
        "admin",
        "policy",
        "keys",
    ];
    assert_eq!(ids, expected);
    found.says("tls.certificate", "keys.example.com");
    found.says("fs.keys", "1 key, each readable");
}

/// Asserts that a directory has these troubles and no other.
#[track_caller]
fn assert_troubles(directory: &Directory, expected: &[(&str, &str)]) -> Findings {
    let found = directory.examine();
    let troubles: Vec<_> = found.troubles().into_iter().filter(|(id, _)| *id != "memory.lock").collect();
    assert_eq!(troubles, expected, "{:#?}", found.checks);
    found
}

#[test]
fn a_config_that_does_not_load_is_named() {
    let directory = Directory::new();
    directory.configure(|config| config.replace("cache:", "cashe:"));
    assert_troubles(&directory, &[("config", "failed")]).says("config", "config.yml:3:1");
    directory.configure(|config| config.replace("ADMIN", "abc"));
    assert_troubles(&directory, &[("admin", "warning")]).says("admin", "config.yml:1:20: admin.identity: no client");
    directory.configure(|config| config.replace("cache:", "cashe:").replace("key: server.key", "kee: x"));
    assert_troubles(&directory, &[("config", "failed"), ("config", "failed")]);
}

#[test]
fn certificates_are_judged_by_their_time() {
    let directory = Directory::new();
    directory.certify(-Duration::days(9), -Duration::DAY);
    assert_troubles(&directory, &[("tls.certificate", "failed")]).says("tls.certificate", "has expired");
    directory.certify(-Duration::DAY, Duration::days(10) + Duration::HOUR);
    assert_troubles(&directory, &[("tls.certificate", "warning")]).says("tls.certificate", "expires in 10 days");
    directory.certify(Duration::DAY, Duration::days(90));
    assert_troubles(&directory, &[("tls.certificate", "failed")]).says("tls.certificate", "is not valid before");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let directory = Directory::new();
    let key = fs::read(directory.path("server.key")).expect("readable");
    directory.certify(-Duration::DAY, Duration::days(90));
    fs::write(directory.path("server.key"), key).expect("written");
    assert_troubles(&directory, &[("tls.certificate", "failed")]).says("tls.certificate", "does not match");
    fs::remove_file(directory.path("server.crt")).expect("removed");
    assert_troubles(&directory, &[("tls.certificate", "failed")]).says("tls.certificate", "cannot be read");
}

#[test]
fn authorities_are_looked_at() {
    let directory = Directory::new();
    let tls = |ca: &str| format!("cert: server.crt, auth: on, ca: {ca} }}");
    directory.configure(|config| config.replace("cert: server.crt }", &tls("ca.crt")));
    Authority::new("Our CA").write(directory.path("ca.crt"));
    let found = assert_troubles(&directory, &[("tls.ca", "warning")]);
    found.says("tls.ca", "'CN=Our CA' expires in 0 days");
    directory.configure(|config| config.replace("cert: server.crt }", &tls("nowhere")));
    assert_troubles(&directory, &[("tls.ca", "failed")]);
}

#[test]
fn keys_that_others_can_read_are_named() {
    let directory = Directory::new();
    set_mode(&directory.path("keys/my-key"), 0o644);
    assert_troubles(&directory, &[("fs.rights", "warning")]).says("fs.rights", "1 key: my-key");
    set_mode(&directory.path("keys/my-key"), 0o600);
    set_mode(&directory.path("keys"), 0o777);
    assert_troubles(&directory, &[("fs.rights", "warning")]).says("fs.rights", "can delete and replace");
}

#[test]
fn broken_keys_are_named_and_their_content_is_not_shown() {
    let directory = Directory::new();
    directory.add_key("broken");
    fs::write(directory.path("keys/empty"), "").expect("written");
    fs::write(directory.path("keys/odd"), r#"{"bytes":"c2VjcmV0LW1hdGVyaWFs"}"#).expect("written");
    for name in ["empty", "odd"] {
        set_mode(&directory.path("keys").join(name), 0o600);
    }
    let found = assert_troubles(&directory, &[("fs.keys", "failed")]);
    for text in ["3 of 4 keys", "'broken'", "'empty' (the stored key is empty)", "'odd'"] {
        found.says("fs.keys", text);
    }
    assert!(!format!("{found:?}").contains("c2VjcmV0"));
}

#[test]
fn what_is_no_key_is_named() {
    let directory = Directory::new();
    fs::create_dir(directory.path("keys/lost+found")).expect("made");
    fs::write(directory.path("keys/.claviger-0011223344556677"), "half").expect("written");
    let live = fs::File::create(directory.path("keys/.claviger-8899aabbccddeeff")).expect("made");
    live.lock().expect("locked");
    let found = assert_troubles(&directory, &[("fs.foreign", "warning"), ("fs.leftovers", "warning")]);
    found.says("fs.foreign", "'lost+found' (a directory)");
    found.says("fs.leftovers", "1 file: .claviger-0011223344556677");
}

#[test]
fn an_empty_or_missing_directory_is_a_warning_and_is_not_made() {
    let directory = Directory::new();
    fs::remove_file(directory.path("keys/my-key")).expect("removed");
    assert_troubles(&directory, &[("fs.keys", "warning")]).says("fs.keys", "would create a new one");
    fs::remove_dir(directory.path("keys")).expect("removed");
    assert_troubles(&directory, &[("keystore.reach", "warning")]).says("keystore.reach", "does not exist");
    fs::write(directory.path("keys"), "a file").expect("written");
    assert_troubles(&directory, &[("keystore.reach", "failed")]).says("keystore.reach", "is no directory");
}

#[test]
fn required_keys_are_tried_out() {
    let directory = Directory::new();
    let require = |keys: &str| {
        let args = ["doctor", "--config", "config.yml", "--json", "--require-keys", keys];
        Findings::of(directory.program().run(&args))
    };
    let found = require("my-key");
    assert_eq!(found.troubles(), [], "{found:#?}");
    found.says("keys.required", "1 required key, each there");
    fs::write(directory.path("keys/odd"), r#"{"bytes":"c2VjcmV0LW1hdGVyaWFs"}"#).expect("written");
    set_mode(&directory.path("keys/odd"), 0o600);
    fs::write(directory.path("names"), "# all that matter\nmy-key\nodd\n\nmissing\n").expect("written");
    let found = require("./names");
    assert!(found.troubles().contains(&("keys.required", "failed")), "{found:#?}");
    found.says("keys.required", "2 of 3 required keys cannot be used: 'missing' (it does not exist), 'odd' (");
    assert!(!format!("{found:?}").contains("c2VjcmV0"));
    // A check of nothing would succeed.
    fs::write(directory.path("names"), "# none yet\n").expect("written");
    let args = ["doctor", "--config", "config.yml", "--require-keys", "./names"];
    let outcome = directory.program().run(&args);
    assert!(outcome.exit == Some(1) && outcome.stderr.contains("names no key"), "{outcome:?}");
    fs::remove_dir_all(directory.path("keys")).expect("removed");
    require("my-key").says("keys.required", "the key store is not there");
    // A file that holds something else is not shown.
    fs::write(directory.path("names"), "hunter2 is no name\n").expect("written");
    let args = ["doctor", "--config", "config.yml", "--require-keys", "./names"];
    let outcome = directory.program().run(&args);
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.contains("./names:1: not the name of a key") && !outcome.stderr.contains("hunter2"));
}

/// As a user who is nobody.
fn as_nobody(directory: &Directory) -> Findings {
    let program = directory.program();
    let mut command = Command::new(peer::program("setpriv", "util-linux"));
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_claviger")]);
    command.args(["doctor", "--config", "config.yml", "--json"]);
    program.prepare(&mut command);
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Findings::of(Outcome { stdout: text(output.stdout), stderr: text(output.stderr), exit: output.status.code() })
}

#[test]
#[ignore = "runs setpriv: tests/run"]
fn another_user_has_no_rights() {
    let directory = Directory::new();
    set_mode(directory.0.path(), 0o755);
    set_mode(&directory.path("server.key"), 0o644);
    set_mode(&directory.path("keys"), 0o700);
    let found = as_nobody(&directory);
    assert!(found.troubles().contains(&("keystore.reach", "failed")), "{found:#?}");
    found.says("keystore.reach", "this program runs as user 65534");
    set_mode(&directory.path("keys"), 0o755);
    let found = as_nobody(&directory);
    for trouble in [("fs.rights", "failed"), ("fs.keys", "failed")] {
        assert!(found.troubles().contains(&trouble), "{found:#?}");
    }
    found.says("fs.keys", "1 of 1 key cannot be used: 'my-key'");
}

#[test]
fn settings_of_the_cache_that_surprise_are_named() {
    let directory = Directory::new();
    directory.configure(|config| config.replace("offline: 24h", "any: 10s, unused: 1m"));
    let found = assert_troubles(&directory, &[("cache", "warning"), ("cache", "warning")]);
    found.says("cache", "unused ones after 10.0s");
    found.says("cache", "cache.expiry.unused (1m 0s) has no effect");
}

#[test]
fn without_an_admin_policies_must_have_members() {
    let directory = Directory::new();
    directory.configure(|config| config.replace("ADMIN", "disabled"));
    assert_troubles(&directory, &[]).says("admin", "disabled");
    directory.configure(|config| config.replace("ADMIN", "disabled").replace("APP", "somebody"));
    let found = assert_troubles(&directory, &[("policy", "warning"), ("admin", "warning")]);
    found.says("admin", "nobody may do anything");
    found.says("policy", "policy.app.identities[0]: no client can have this identity");
    directory.configure(|config| config.replace("ADMIN", "nobody"));
    assert_troubles(&directory, &[("admin", "warning")]).says("admin", "nobody is admin");
}

#[test]
fn policies_that_hardly_mean_what_they_say_are_named() {
    let directory = Directory::new();
    let with_rules = |rules: &str| {
        directory.configure(|config| config.replace("allow: [ /v1/key/generate/my-* ]", rules));
        directory.examine()
    };
    for (rules, text) in [
        ("allow: [ /v1/* ]", "policy.app.allow[0] allows everything"),
        ("allow: [ '*' ]", "policy.app.allow[0] allows everything"),
        ("allow: [ /v1/status, v1/metrics ]", "policy.app.allow[1]: matches no request"),
        ("allow: [ /v1/status, '/v1/key/*/my-key' ]", "policy.app.allow[1]: matches no request"),
        ("allow: []", "policy.app allows nothing"),
        ("allow: [ /v1/status, /v1/key/* ], deny: [ '/v1/*' ]", "its deny rules cover everything that it allows"),
    ] {
        let found = with_rules(rules);
        let troubles: Vec<_> = found.troubles().into_iter().filter(|(id, _)| *id != "memory.lock").collect();
        assert_eq!(troubles, [("policy", "warning")], "{rules}: {:#?}", found.checks);
        found.says("policy", text);
    }
    // Somebody relies on what is denied.
    directory.configure(|config| {
        config.replace("allow: [ /v1/key/generate/my-* ]", "allow: [ /v1/status ], deny: [ v1/metrics ]")
    });
    let found = assert_troubles(&directory, &[("policy", "failed")]);
    found.says("policy", "policy.app.deny[0]: matches no request");
    directory.configure(|config| config.replace(", identities: [ APP ]", ""));
    assert_troubles(&directory, &[("policy", "warning")]).says("policy", "it has no identities");
}

#[test]
fn files_with_secrets_that_everybody_may_read_are_named() {
    let directory = Directory::new();
    fs::write(directory.path("seal.key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("written");
    let encrypt = "fs: { path: keys }, encrypt: { local: { file: seal.key }, allow_plaintext: true }";
    directory.configure(|config| config.replace("fs: { path: keys }", encrypt));
    let is_about_files = |(id, _): &(&str, &str)| *id == "files";
    for (key, seal, names) in [
        (0o644, 0o644, "2 files with secrets: 'seal.key' (0644), 'server.key' (0644)"),
        (0o600, 0o604, "1 file with secrets: 'seal.key' (0604)"),
        (0o620, 0o400, "1 file with secrets: 'server.key' (0620)"),
    ] {
        set_mode(&directory.path("server.key"), key);
        set_mode(&directory.path("seal.key"), seal);
        let found = directory.examine();
        assert!(found.troubles().iter().any(is_about_files), "{:#?}", found.checks);
        found.says("files", names);
    }
    set_mode(&directory.path("server.key"), 0o640);
    assert!(!directory.examine().troubles().iter().any(is_about_files));
}

/// The ciphertexts are those of an archived server; they do not say which key made them.
#[test]
fn a_ciphertext_of_the_running_server_is_opened_by_its_key_or_fails() {
    let directory = Directory::new();
    fs::copy(testdata("stored-keys/HEAD/head-create"), directory.path("keys/other-key")).expect("copied");
    set_mode(&directory.path("keys/other-key"), 0o600);
    let text = fs::read(testdata("ciphertexts/HEAD.json")).expect("readable");
    let ciphertexts: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    let of_head = |ciphertext: &&Value| ciphertext["key"] == "head-create";
    let (mut bare, mut bound) = (0, 0);
    for ciphertext in ciphertexts.iter().filter(of_head) {
        let text = unwrapped(ciphertext, "ciphertext");
        let file = match ciphertext["context"].as_str() {
            Some(context) if !context.is_empty() => {
                bound += 1;
                serde_json::json!({ "ciphertext": text, "context": context }).to_string()
            }
            _ => {
                bare += 1;
                format!("{text}\n")
            }
        };
        fs::write(directory.path("ciphertext"), file).expect("written");
        let found = directory.examine_with(&["--decrypts", "ciphertext"]);
        found.says("keys.decrypts", "the key 'other-key' opens 'ciphertext'");
        assert_eq!(found.exit, Some(0));
    }
    assert!(bare > 1 && bound > 0, "{bare} without context, {bound} with one");
    let fails = |args: &[&str], says: &str| {
        let found = directory.examine_with(args);
        found.says("keys.decrypts", says);
        assert_eq!(found.exit, Some(1));
    };
    fails(&["--decrypts", "ciphertext", "--require-keys", "my-key"], "none of 1 key opens 'ciphertext'");
    fs::write(directory.path("keys/other-key"), "nonsense").expect("written");
    fails(&["--decrypts", "ciphertext"], "none of 2 keys opens 'ciphertext', and these cannot be read: 'other-key' (");
    fs::remove_dir_all(directory.path("keys")).expect("removed");
    fails(&["--decrypts", "ciphertext"], "there is no key store");
    fs::write(directory.path("ciphertext"), "hunter2").expect("written");
    let outcome = directory.program().run(&["doctor", "--config", "config.yml", "--decrypts", "ciphertext"]);
    let says = "Error: 'ciphertext' holds no ciphertext: it is neither base64 nor what 'key encrypt' prints\n";
    assert_eq!((outcome.exit, outcome.stderr.as_str()), (Some(1), says));
}

#[test]
fn a_key_manager_is_examined_too() {
    let directory = Directory::new();
    fs::write(directory.path("a.hsm"), "hsm:aes256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("written");
    set_mode(&directory.path("a.hsm"), 0o644);
    let config =
        "version: v1\ntls: { certs: [ { key: server.key, cert: server.crt } ] }\nhsm: { a: { file: a.hsm } }\n";
    fs::write(directory.path("config.yml"), config).expect("written");
    assert_troubles(&directory, &[("files", "warning")]).says("files", "'a.hsm' (0644)");
    set_mode(&directory.path("a.hsm"), 0o600);
    let found = assert_troubles(&directory, &[]);
    found.says("hsm", "1 way to unseal the data");
    found.says("tls.certificate", "keys.example.com");
    fs::write(directory.path("a.hsm"), "hunter2").expect("written");
    let found = assert_troubles(&directory, &[("hsm", "failed")]);
    found.says("hsm", "hsm.a: 'a.hsm': not an HSM key");
    assert!(!format!("{found:?}").contains("hunter2"));
    directory.certify(-Duration::days(9), -Duration::DAY);
    fs::write(directory.path("config.yml"), config.replace("hsm:", "hms:")).expect("written");
    assert_troubles(&directory, &[("config", "failed")]).says("config", "did you mean 'hsm'?");
}

#[test]
fn keys_of_the_config_need_somebody_to_use_them() {
    let directory = Directory::new();
    directory
        .configure(|config| config.replace("ADMIN", "disabled") + "keys: [ { name: my-other }, { name: theirs } ]\n");
    assert_troubles(&directory, &[("keys", "warning")]).says("keys", "the key 'theirs'");
}

#[test]
fn people_see_columns_and_colours() {
    let directory = Directory::new();
    set_mode(&directory.path("keys/my-key"), 0o644);
    let program = directory.program().env("TERM", "xterm-256color");
    let args = ["doctor", "--config", "config.yml"].map(str::to_owned);
    let (shown, exit) = Terminal::start(&program, &args).wait();
    assert_eq!(exit, Some(0), "{shown}");
    assert!(shown.contains("\x1b[33mwarning\x1b[0m  fs.rights  "), "{shown:?}");
    assert!(shown.contains("\x1b[1m\x1b[32mok     \x1b[0m  config  "), "{shown:?}");
    let fix = "                          fix: run 'chmod go=' on these files in 'keys'";
    assert!(plain(&shown).lines().any(|line| line.starts_with(fix)), "{shown}");
}
