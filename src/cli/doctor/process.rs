//! `core.dumps`, `memory.lock`, `clock`: whether this machine protects a server's memory and has the right time.

use time::OffsetDateTime;
use time::macros::datetime;

use super::Report;
use crate::cli::out::moment;
use crate::memory::{ALLOW_LOCK, Lock};
use crate::{clock, memory};

/// No program like this one was built earlier: it is when the oldest compiler that can build it came out.
const OLDEST_BUILD: OffsetDateTime = datetime!(2025-09-18 00:00 UTC);

/// Whether core files can be forbidden; from now on they are.
pub(super) fn core_dumps(report: &mut Report) {
    match memory::forbid_core_dumps() {
        Ok(()) => report.ok("core.dumps", "no core file will hold keys"),
        Err(error) => report.failed(
            "core.dumps",
            format!("core files cannot be forbidden, so a server does not start: {error}"),
            "allow the system calls setrlimit and prctl, which a container or a seccomp filter refuses",
        ),
    }
}

/// Whether memory can be locked with the limits that this command has.
pub(super) fn memory_lock(report: &mut Report) {
    match memory::lock() {
        Lock::Enabled => report.ok("memory.lock", "keys are never swapped out"),
        Lock::Disabled(why) => report.warning(
            "memory.lock",
            format!("keys may be swapped out to disk: {why}, for this command at least"),
            format!("start the server with {ALLOW_LOCK}; or switch swap off"),
        ),
    }
}

/// Whether it is as late as it must be.
pub(super) fn clock(report: &mut Report) {
    let now = clock::now();
    if now < OLDEST_BUILD {
        let message = format!("the clock is wrong: it shows {}, before this program was built", moment(now));
        return report.failed("clock", message, SET_CLOCK);
    }
    report.ok("clock", "plausible");
}

/// What to do about a wrong clock.
pub(super) const SET_CLOCK: &str = "set the clock, and keep it right with NTP: certificates are judged by it";
