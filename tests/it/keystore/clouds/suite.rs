//! The one suite.

use claviger::keystore::conformance;
use futures_util::future::join_all;

use super::VENDORS;
use crate::support::block_on;
use crate::support::clouds::Clouds;

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn all_pass_it() {
    let clouds = Clouds::start();
    // Beside each other: some have to wait.
    block_on(join_all(VENDORS.iter().map(async |vendor| {
        conformance::run_up_to(&*vendor.connect(&clouds).await, vendor.longest).await;
    })));
}
