//! The one suite, in every kind of place there is.

use serde_json::{Value, json};

use claviger::keystore::conformance;

use super::{Place, Rights, connect};
use crate::support::block_on;
use crate::support::openbao::{OpenBao, unique};

/// A transit engine with a key "keys"; returns where, and the rights to it.
fn transit(bao: &OpenBao) -> (String, String) {
    let engine = unique("transit");
    bao.ask("POST", &format!("sys/mounts/{engine}"), json!({ "type": "transit" }));
    bao.ask("POST", &format!("{engine}/keys/keys"), Value::Null);
    let rule = |what| format!("path \"{engine}/{what}/keys\" {{ capabilities = [\"update\"] }}\n");
    let policy = format!("{}{}", rule("encrypt"), rule("decrypt"));
    (engine, policy)
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn version_2_passes_it() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    block_on(async {
        let store = connect(&place.by_role(&bao.endpoint())).await.expect("connects");
        conformance::run(&*store).await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn version_1_passes_it_but_for_races() {
    let bao = OpenBao::shared();
    let place = Place::within(&bao, None, 1, Rights::Replace, "", json!({}));
    block_on(async {
        let store = connect(&place.by_role(&bao.endpoint())).await.expect("connects");
        conformance::run_without_races(&*store).await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn values_wrapped_by_transit_pass_it() {
    let bao = OpenBao::shared();
    let (engine, policy) = transit(&bao);
    for version in [1, 2] {
        let place = Place::within(&bao, None, version, Rights::Replace, &policy, json!({}));
        let mut section = place.by_role(&bao.endpoint());
        section["transit"] = json!({ "engine": engine, "key": "keys" });
        block_on(async {
            let store = connect(&section).await.expect("connects");
            match version {
                1 => conformance::run_without_races(&*store).await,
                _ => conformance::run(&*store).await,
            }
        });
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_namespace_passes_it() {
    let bao = OpenBao::shared();
    let namespace = unique("ns");
    bao.ask("POST", &format!("sys/namespaces/{namespace}"), json!({}));
    let place = Place::within(&bao, Some(&namespace), 2, Rights::Server, "", json!({}));
    block_on(async {
        let store = connect(&place.by_role(&bao.endpoint())).await.expect("connects");
        conformance::run(&*store).await;
    });
}
