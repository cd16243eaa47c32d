//! Who may move keys.

use super::{Desk, KeyManager};

fn migrate(manager: &KeyManager, desk: &Desk, api_key: &str, args: &[&str]) -> crate::support::program::Outcome {
    manager.program("claviger", desk.path(), api_key).run(&[&["migrate"], args].concat())
}

#[test]
fn an_admin_of_the_enclave_moves_keys_in_but_not_out() {
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(2));
    let admin = manager.add_identity(&["--admin"]);
    let run = migrate(&manager, &desk, &admin, &["--from", "src.yml"]);
    assert_eq!(run.exit, Some(0), "{run:?}");
    let mut section = manager.section();
    section["keystore"]["kms"]["api_key"] = admin.into();
    desk.write("kms.yml", &section.to_string());
    let run = migrate(&manager, &desk, "", &["--from", "kms.yml", "--to", "dst.yml"]);
    assert!(run.exit == Some(1) && run.stderr.contains("only a system administrator may"), "{run:?}");
    assert!(!desk.path().join("dst").exists());
}

#[test]
fn a_user_is_told_which_rights_are_missing() {
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(2));
    let user = manager.add_identity(&[]);
    let identity = claviger::auth::enclave::ApiKey::parse(&user).expect("a key").identity().to_string();
    let actions = ["KEY:LIST", "KEY:GENERATE", "KEY:DECRYPT", "KEY:MAC", "IDENTITY:STATUS", "POLICY:GET"];
    let set = |more: &[&str]| {
        let allow: Vec<_> = actions.iter().chain(more).map(|action| format!("\"{action}\":\"*\"")).collect();
        desk.write("policy.json", &format!("{{\"allow\":{{{}}}}}", allow.join(",")));
        manager.program("minkms", desk.path(), &manager.root).run(&["add-policy", "mover", "policy.json"]).ok();
    };
    set(&[]);
    manager.minkms(&["assign-policy", "mover", &identity]).ok();
    let run = migrate(&manager, &desk, &user, &["--from", "src.yml"]);
    assert!(run.exit == Some(1) && run.stderr.contains("does not allow KEY:IMPORT;"), "{run:?}");
    assert!(run.stderr.contains(r#"{"allow":{"KEY:LIST":"*","#), "{run:?}");
    assert_eq!(manager.keys(), 0);
    set(&["KEY:IMPORT"]);
    let run = migrate(&manager, &desk, &user, &["--from", "src.yml"]);
    assert_eq!(run.exit, Some(0), "{run:?}");
}

#[test]
fn nobody_and_nowhere_are_said_to_be() {
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(1));
    let stranger = claviger::auth::enclave::ApiKey::generate().expect("random bytes");
    let run = migrate(&manager, &desk, stranger.expose(), &["--from", "src.yml"]);
    assert!(run.exit == Some(1) && run.stderr.contains("is unknown in this enclave"), "{run:?}");
    let run = migrate(&manager, &desk, &manager.root, &["--from", "src.yml", "--enclave", "nowhere"]);
    assert!(run.exit == Some(1) && run.stderr.contains("claviger kms add-enclave nowhere"), "{run:?}");
    let none = crate::support::program::Program::named("claviger", desk.path());
    let run = none.run(&["migrate", "--from", "src.yml"]);
    assert!(run.exit == Some(2) && run.stderr.contains("no target: use '--target FILE'"), "{run:?}");
}

#[test]
fn a_server_does_not_take_a_key_manager_for_its_key_store() {
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(0));
    let section = manager.section()["keystore"].to_string();
    desk.write(
        "server.yml",
        &format!("admin: {{ identity: disabled }}\ntls: {{ key: x, cert: x }}\nkeystore: {section}\n"),
    );
    let run = desk.run(&manager, &["server", "--config", "server.yml"]);
    assert!(run.exit == Some(1) && run.stderr.contains("a key manager is no key store of a server"), "{run:?}");
}
