//! The source: never made, never changed, never the target.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;

use super::support::{Mount, Run, Stores, key};

#[test]
fn nothing_about_the_source_changes() {
    let stores = Stores::with_keys(20);
    stores.write("src/.claviger-0011223344556677", "left by a killed server");
    stores.write("dst/key-00003", &key(99));
    let before = stores.snapshot("src");
    stores.migrate(&[]).expect(1);
    stores.migrate(&["--dry-run", "--force"]).expect(0);
    stores.migrate(&["--force"]).expect(0);
    stores.migrate(&["--merge"]).expect(0);
    stores.verify(&[]).expect(0);
    assert!(stores.snapshot("src") == before);
}

#[test]
fn a_source_that_does_not_exist_is_an_error_and_stays_so() {
    let stores = Stores::empty();
    std::fs::remove_dir(stores.path("src")).expect("removed");
    assert!(stores.migrate(&[]).expect(1).stderr.contains("the source does not exist"));
    assert!(stores.verify(&[]).expect(1).stderr.contains("the source does not exist"));
    assert!(!stores.path("src").exists());
}

#[test]
fn a_source_without_any_key_is_an_error() {
    let stores = Stores::empty();
    stores.write("src/.hidden", &key(0));
    for run in [stores.migrate(&[]), stores.migrate(&["my*"]), stores.verify(&[])] {
        assert!(run.expect(1).stderr.contains("the source has no keys"));
    }
}

#[test]
fn the_same_store_is_recognised_behind_links_and_mounts() {
    let stores = Stores::with_keys(1);
    let same = |run: Run| {
        let run = run.expect(1);
        assert!(run.stderr.contains("source and target are the same store"), "{}", run.stderr);
    };
    std::fs::remove_dir(stores.path("dst")).expect("removed");
    symlink("src", stores.path("dst")).expect("made");
    same(stores.migrate(&[]));
    same(stores.migrate(&["--force"]));
    same(stores.migrate(&["--merge", "--dry-run"]));
    same(stores.verify(&[]));

    std::fs::remove_file(stores.path("dst")).expect("removed");
    std::fs::create_dir(stores.path("dst")).expect("made");
    let _mount = Mount::bind(&stores.path("src"), &stores.path("dst"));
    same(stores.migrate(&["--force"]));
    assert_eq!(stores.read("src/key-00000"), key(0));
}

#[test]
fn a_key_that_cannot_be_read_is_named_before_anything_is_written() {
    let stores = Stores::with_keys(3);
    let open = std::fs::Permissions::from_mode(0o777);
    for path in ["", "src", "dst"] {
        std::fs::set_permissions(stores.path(path), open.clone()).expect("opened");
    }
    std::fs::set_permissions(stores.path("src/key-00000"), open.clone()).expect("opened");
    std::fs::set_permissions(stores.path("src/key-00002"), open).expect("opened");
    std::fs::set_permissions(stores.path("src/key-00001"), std::fs::Permissions::from_mode(0o000)).expect("closed");
    // Nobody who may read everything could see it.
    std::fs::copy(env!("CARGO_BIN_EXE_claviger"), stores.path("claviger")).expect("copied");
    let run = |args: &[&str]| -> Run {
        let mut command = std::process::Command::new(stores.path("claviger"));
        command.args(["migrate", "--from", "src.yml", "--to", "dst.yml"]).args(args);
        command.current_dir(stores.path("")).uid(65_534).gid(65_534).output().expect("runs").into()
    };
    let refused = run(&[]).expect(1);
    assert!(refused.stderr.contains("'key-00001' on the source: "), "{}", refused.stderr);
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
    assert!(stores.keys("dst").is_empty());
    run(&["--exclude", "key-00001"]).expect(0);
    assert_eq!(stores.keys("dst").len(), 2);
}

#[test]
fn a_full_server_config_is_good_enough_and_so_is_the_store_alone() {
    let stores = Stores::with_keys(1);
    let server = "address: 0.0.0.0:7373\nadmin:\n  identity: disabled\ntls:\n  key: no.key\n  cert: no.crt\n";
    stores.write("src.yml", &format!("{server}keystore:\n  fs:\n    path: src\n"));
    stores.migrate(&[]).expect(0);
    stores.write("src.yml", "address: 0.0.0.0:7373\n");
    stores.migrate(&[]).expect(1);
}
