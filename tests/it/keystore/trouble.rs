//! What the API and the log say when something is wrong with the directory of keys.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use super::{Mount, admin, ask, config, path, serve, wait_for_log};
use crate::support::peer::program;
use crate::support::server::{PROGRAM, copy_fixture, fixture_config};
use crate::support::{Client, Session, TestServer, block_on, testdata};

/// The user who has no rights, on Debian.
const NOBODY: u32 = 65_534;

const OK: (u16, &str) = (200, "");
const NO_CREATE: (u16, &str) = (502, "failed to create key");
const NO_READ: (u16, &str) = (502, "failed to read key");
const NO_DELETE: (u16, &str) = (502, "failed to delete key");

/// Sends requests, all at once, and compares what comes back.
async fn expect(session: &Session, expected: &[(&str, &str, (u16, &str))]) {
    let answers = join_all(expected.iter().map(|(method, target, _)| ask(session, method, target))).await;
    for ((method, target, expected), (status, message)) in expected.iter().zip(answers) {
        assert_eq!((status, message.as_str()), *expected, "{method} {target}");
    }
}

async fn session(server: &TestServer) -> Session {
    admin(server).session().await.expect("connects")
}

/// A key of the fixture, under another name.
fn put_key(keys: &Path, name: &str) {
    fs::copy(testdata("http/fixture/keys/my-key"), keys.join(name)).expect("copied");
}

#[test]
fn odd_entries_are_no_keys() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| keys.path().join(name);
    put_key(keys.path(), "key");
    for name in [".hidden", "a.b", "tmp~", "-lead", "_", "empty"] {
        fs::write(at(name), "").expect("written");
    }
    fs::create_dir(at("directory")).expect("made");
    symlink("key", at("link")).expect("made");
    symlink("nowhere", at("dangling")).expect("made");
    symlink("dangling-deleted", at("dangling-deleted")).expect("made");
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
    let _socket = UnixListener::bind(at("socket")).expect("made");
    fs::write(at("large"), vec![b'x'; 2_000_000]).expect("written");

    let server = serve(keys.path());
    block_on(async {
        let listed = admin(&server).get("/v1/key/list/*").await.json();
        assert_eq!(listed, json!({ "names": ["empty", "key", "large", "link"] }));
        let session = session(&server).await;
        expect(
            &session,
            &[
                ("GET", "/v1/key/describe/link", OK),
                ("GET", "/v1/key/describe/directory", NO_READ),
                ("GET", "/v1/key/describe/dangling", NO_READ),
                ("GET", "/v1/key/describe/dangling-deleted", NO_READ),
                ("GET", "/v1/key/describe/pipe", NO_READ),
                ("GET", "/v1/key/describe/socket", NO_READ),
                ("GET", "/v1/key/describe/large", NO_READ),
                ("GET", "/v1/key/describe/empty", NO_READ),
                ("GET", "/v1/key/describe/missing", (404, "key does not exist")),
                ("PUT", "/v1/key/create/directory", (400, "key already exists")),
                ("PUT", "/v1/key/create/dangling", (400, "key already exists")),
                ("PUT", "/v1/key/create/pipe", (400, "key already exists")),
                ("DELETE", "/v1/key/delete/directory", NO_DELETE),
                ("DELETE", "/v1/key/delete/pipe", NO_DELETE),
                ("DELETE", "/v1/key/delete/socket", NO_DELETE),
                ("DELETE", "/v1/key/delete/missing", (404, "key does not exist")),
            ],
        )
        .await;
        for name in ["link", "dangling-deleted", "empty"] {
            expect(&session, &[("DELETE", &format!("/v1/key/delete/{name}"), OK)]).await;
            assert!(at(name).symlink_metadata().is_err(), "{name}");
        }
    });
    assert!(at("key").exists(), "what a link led to stays");
    for (name, why) in [
        ("directory", "is a directory and no key"),
        ("dangling", "is a link that leads nowhere and no key"),
        ("dangling-deleted", "is a link that leads to itself and no key"),
        ("pipe", "is a named pipe and no key"),
        ("socket", "is a socket or a device and no key"),
        ("large", "is larger than 1048576 bytes and no key"),
    ] {
        wait_for_log(&server, &["failed to read key", &format!("{}' {why}", path(&at(name)))]);
    }
    wait_for_log(&server, &["failed to read key", "the stored key is empty"]);
}

#[test]
#[ignore = "runs setpriv: tests/run"]
fn a_server_without_rights_says_which_it_needs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy_fixture(directory.path());
    let (keys, program_file) = (directory.path().join("keys"), directory.path().join("claviger"));
    fs::copy(PROGRAM, &program_file).expect("a program that anybody may run");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("changed");
    fs::set_permissions(directory.path().join("server.key"), fs::Permissions::from_mode(0o644)).expect("changed");
    fs::set_permissions(keys.join("a"), fs::Permissions::from_mode(0o600)).expect("changed");
    fs::set_permissions(keys.join("my-key"), fs::Permissions::from_mode(0o644)).expect("changed");
    chown(&keys, Some(NOBODY), Some(NOBODY)).expect("changed");

    let mut command = Command::new(program("setpriv", "util-linux"));
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program_file);
    let server = TestServer::start_under(command, directory, &fixture_config(|config| config));
    block_on(async {
        let session = Client::fixture(server.address(), "admin").session().await.expect("connects");
        let first = [
            ("GET", "/v1/key/describe/my-key", OK),
            ("GET", "/v1/key/describe/a", NO_READ),
            ("PUT", "/v1/key/create/new", OK),
        ];
        expect(&session, &first).await;
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o555)).expect("changed");
        let second = [
            ("PUT", "/v1/key/create/newer", NO_CREATE),
            ("DELETE", "/v1/key/delete/new", NO_DELETE),
            ("GET", "/v1/ready", OK),
        ];
        expect(&session, &second).await;
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o000)).expect("changed");
        let third = [
            ("GET", "/v1/key/describe/9", NO_READ),
            ("GET", "/v1/key/list/*", (502, "failed to list keys")),
            ("GET", "/v1/ready", (502, "key store is unavailable")),
        ];
        expect(&session, &third).await;
    });
    let who = "this program runs as user 65534, who needs rwx on the directory and rw on the files in it";
    wait_for_log(&server, &["cannot read 'keys/a'", who, "Permission denied"]);
    wait_for_log(&server, &["failed to create key", "cannot create 'keys/.claviger-", who]);
    wait_for_log(&server, &["failed to delete key", "cannot delete 'keys/new'", who]);
    wait_for_log(&server, &["failed to list keys", "cannot open 'keys'", who]);
}

#[test]
fn a_full_disk_refuses_creates_and_nothing_else() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let _mount = Mount::new(keys.path(), "size=64k");
    put_key(keys.path(), "key");
    let server = serve(keys.path());
    let filler = keys.path().join(".filler");
    let error = fs::write(&filler, vec![0; 100_000]).expect_err("the file system is small");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    block_on(async {
        let session = session(&server).await;
        let full = [
            ("PUT", "/v1/key/create/new", NO_CREATE),
            ("PUT", "/v1/key/create/key", (400, "key already exists")),
            ("GET", "/v1/key/describe/key", OK),
            ("GET", "/v1/ready", OK),
        ];
        expect(&session, &full).await;
        wait_for_log(&server, &["failed to create key", "the file system is full; free some space", "No space left"]);
        assert_eq!(fs::read_dir(keys.path()).expect("readable").count(), 2, "no temporary file takes the last space");
        fs::remove_file(&filler).expect("removed");
        expect(&session, &[("PUT", "/v1/key/create/new", OK), ("DELETE", "/v1/key/delete/key", OK)]).await;
    });
}

#[test]
fn a_read_only_file_system_serves_its_keys() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let mount = Mount::new(keys.path(), "size=64k");
    put_key(keys.path(), "key");
    fs::write(keys.path().join(".claviger-0011223344556677"), "half").expect("written");
    mount.remount("ro");
    let server = serve(keys.path());
    wait_for_log(&server, &["WARN", "cannot remove an unfinished file", "Read-only file system"]);
    block_on(async {
        let session = session(&server).await;
        let read_only = [
            ("PUT", "/v1/key/create/new", NO_CREATE),
            ("GET", "/v1/key/describe/key", OK),
            ("DELETE", "/v1/key/delete/key", NO_DELETE),
            ("GET", "/v1/key/list/*", OK),
            ("GET", "/v1/ready", OK),
        ];
        expect(&session, &read_only).await;
        let why = ["mounted read-only; mount it read-write", "Read-only file system"];
        for action in ["failed to create key", "failed to delete key"] {
            wait_for_log(&server, &[action, why[0], why[1]]);
        }
        mount.remount("rw");
        expect(&session, &[("PUT", "/v1/key/create/new", OK), ("DELETE", "/v1/key/delete/key", OK)]).await;
    });
}

/// Every request while the directory is gone: first what is retried in vain, then what is not.
const VANISHED: [(&str, &str, (u16, &str)); 6] = [
    ("GET", "/v1/key/describe/key", (503, "failed to read key")),
    ("PUT", "/v1/key/generate/missing", (503, "failed to read key")),
    ("PUT", "/v1/key/create/new", (503, "failed to create key")),
    ("DELETE", "/v1/key/delete/key", (503, "failed to delete key")),
    ("GET", "/v1/key/list/*", (503, "failed to list keys")),
    ("GET", "/v1/ready", (504, "key store is not reachable")),
];

#[test]
fn a_directory_that_vanishes_is_an_unreachable_store() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let (keys, away) = (parent.path().join("keys"), parent.path().join("away"));
    fs::create_dir(&keys).expect("made");
    put_key(&keys, "key");
    let server = serve(&keys);
    block_on(async {
        let session = session(&server).await;
        fs::rename(&keys, &away).expect("renamed");
        expect(&session, &VANISHED).await;
        wait_for_log(&server, &["failed to create key", "has vanished; bring it back, or mount it again", path(&keys)]);
        assert!(!keys.exists(), "a running server makes no directory");

        // Back within a request, as after a restart of a file server.
        let patient =
            [("GET", "/v1/key/describe/key", OK), ("PUT", "/v1/key/create/new", OK), ("GET", "/v1/key/list/*", OK)];
        let back = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            fs::rename(&away, &keys).expect("renamed");
        };
        tokio::join!(expect(&session, &patient), back);
        expect(&session, &[("GET", "/v1/ready", OK), ("DELETE", "/v1/key/delete/new", OK)]).await;
    });
}

#[test]
fn a_file_in_place_of_the_directory_is_a_failure() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let keys = parent.path().join("keys");
    fs::create_dir(&keys).expect("made");
    put_key(&keys, "key");
    let server = serve(&keys);
    block_on(async {
        let session = session(&server).await;
        fs::rename(&keys, parent.path().join("away")).expect("renamed");
        fs::write(&keys, "").expect("written");
        let failures = [
            ("GET", "/v1/key/describe/key", NO_READ),
            ("PUT", "/v1/key/create/new", NO_CREATE),
            ("DELETE", "/v1/key/delete/key", NO_DELETE),
            ("GET", "/v1/key/list/*", (502, "failed to list keys")),
            ("GET", "/v1/ready", (502, "key store is unavailable")),
        ];
        expect(&session, &failures).await;
        wait_for_log(&server, &[&format!("{}' is no directory; the keys are expected in one", path(&keys))]);
    });
}

#[test]
fn the_empty_directory_below_a_lost_mount_says_nothing_about_keys() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let mount = Mount::new(keys.path(), "size=64k");
    put_key(keys.path(), "key");
    let server = serve(keys.path());
    block_on(async {
        let session = session(&server).await;
        expect(&session, &[("GET", "/v1/ready", OK), ("PUT", "/v1/key/create/new", OK)]).await;
        drop(mount);
        expect(&session, &VANISHED).await;
        assert_eq!(fs::read_dir(keys.path()).expect("readable").count(), 0, "nothing is created below");
        let _mount = Mount::new(keys.path(), "size=64k");
        put_key(keys.path(), "key");
        expect(&session, &[("GET", "/v1/ready", OK), ("GET", "/v1/key/describe/key", OK)]).await;
    });
}

#[test]
fn a_directory_that_cannot_be_made_stops_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    for (keys, why) in [(file.join("keys"), "cannot create the directory"), (file.clone(), "is no directory")] {
        let error = TestServer::refuses(directory.path(), &config(&keys));
        assert!(error.contains(why) && error.contains(path(&keys)), "{error}");
    }
}

#[test]
fn a_static_key_serves_and_stays() {
    let server = TestServer::start_in(
        tempfile::tempdir().expect("a temporary directory"),
        &config(Path::new("unused")).replace(
            "fs: { path: unused }",
            "static: { key: \"my-key:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\" }",
        ),
    );
    block_on(async {
        let session = session(&server).await;
        let answers = [
            ("GET", "/v1/key/describe/my-key", OK),
            ("PUT", "/v1/key/generate/my-key", OK),
            ("PUT", "/v1/key/create/my-key", (400, "key already exists")),
            ("PUT", "/v1/key/create/new", NO_CREATE),
            ("DELETE", "/v1/key/delete/my-key", NO_DELETE),
            ("GET", "/v1/ready", OK),
        ];
        expect(&session, &answers).await;
        for action in ["failed to create key", "failed to delete key"] {
            wait_for_log(&server, &[action, "read-only"]);
        }
    });
    let said = format!("{}{}", server.stdout(), server.stderr());
    assert!(!said.contains("QUFB"), "{said}");
}
