//! The one suite, and what it does not know.

use claviger::keystore::conformance;
use serde_json::json;

use super::{connect, section, section_of};
use crate::support::block_on;
use crate::support::moto::Moto;

#[test]
#[ignore = "runs moto: tests/run"]
fn passes_it() {
    let moto = Moto::shared();
    block_on(async {
        let store = connect(&section(&moto.endpoint(), "suite/keys/")).await;
        conformance::run(&*store).await;
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn a_whole_account_passes_it() {
    let moto = Moto::start();
    block_on(async {
        let store = connect(&section(&moto.endpoint(), "")).await;
        conformance::run(&*store).await;
    });
    assert_eq!(moto.names(), [""; 0]);
}

/// Signatures are checked, and the rights are those that the documentation gives, and no other.
#[test]
#[ignore = "runs moto: tests/run"]
fn a_user_with_six_rights_passes_it() {
    let moto = Moto::start();
    let actions =
        ["CreateSecret", "GetSecretValue", "DeleteSecret", "ListSecrets", "PutSecretValue", "UpdateSecretVersionStage"];
    let actions = actions.map(|action| format!("secretsmanager:{action}"));
    // It compares with nothing but "*".
    let user = moto.user("server", &json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }]));
    moto.enforce(true);
    block_on(async {
        let store = connect(&section_of(&user, &moto, "kes/")).await;
        conformance::run(&*store).await;
    });
}
