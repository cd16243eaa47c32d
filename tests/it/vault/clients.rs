//! Clients that are made by others.

use std::process::Command;

use super::door::{ALL, Door, SECRETS};
use crate::support::certs;
use crate::support::peer::{python, python_package};

#[test]
#[ignore = "needs hvac"]
fn hvac_does_what_people_do_with_it() {
    python_package("hvac", "hvac");
    let door = Door::start(", kv: secret");
    let user = door.user("all", &[ALL, SECRETS].concat(), "*");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/with_hvac.py");
    let url = format!("https://{}", door.address);
    let ran = Command::new(python())
        .arg(script)
        .args([&url, certs("ca.crt").to_str().expect("text"), user.expose()])
        .args([user.identity().to_string().as_str(), user.expose()])
        .output()
        .expect("Python runs");
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(ran.status.success() && said[0].contains("works"), "{said:?}");
}
