//! `core.dumps`, `memory.lock`, `clock`: whether this machine protects a server's memory and has the right time.

use time::OffsetDateTime;
use time::macros::datetime;

use super::Report;
use crate::cli::out::moment;
use crate::memory::{ALLOW_LOCK, Lock};
use crate::{clock, memory};

/// The release date of the oldest compiler that can build this program. No clock can be right that shows an earlier
/// time.
const OLDEST_BUILD: OffsetDateTime = datetime!(2025-09-18 00:00 UTC);

/// Forbids core files, and reports whether that works.
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

/// Reports whether memory can be locked with the limits of this command.
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

/// Reports whether the clock shows an impossible time.
pub(super) fn clock(report: &mut Report) {
    let now = clock::now();
    if now < OLDEST_BUILD {
        let message = format!("the clock is wrong: it shows {}, before this program was built", moment(now));
        return report.failed("clock", message, SET_CLOCK);
    }
    report.ok("clock", "plausible");
}

/// The advice for a wrong clock.
pub(super) const SET_CLOCK: &str = "set the clock, and keep it right with NTP: certificates are judged by it";
