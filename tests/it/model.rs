//! The model of the cluster: every order of steps of a few nodes. What it finds is a fault of the design, not of the code.

use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "explores 425,876 states for ten seconds: tests/run"]
fn the_design_of_the_cluster_holds_and_every_rule_of_it_is_needed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (source, model) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/model.rs"), directory.path().join("model"));
    let compiled = Command::new("rustc").args(["-O", "--edition", "2024", "-o"]).arg(&model).arg(source).status();
    assert!(compiled.expect("rustc runs").success(), "it compiles");
    let run = Command::new(model).output().expect("it runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!((said.matches(" holds").count(), said.matches("VIOLATED").count()), (9, 12), "{said}");
}
