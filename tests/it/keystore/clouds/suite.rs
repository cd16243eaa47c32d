//! The one suite.

use claviger::keystore::conformance;

use super::VENDORS;
use crate::support::block_on;
use crate::support::clouds::Clouds;

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn all_pass_it() {
    let clouds = Clouds::start();
    for vendor in VENDORS {
        block_on(async { conformance::run(&*vendor.connect(&clouds).await).await });
    }
}
