//! The process's memory: the allocator's statistics, locking in RAM, core dumps.
//!
//! It has unsafe code, because the allocator's count of live allocations has no safe interface. Without the feature
//! `jemalloc`, the heap is what the kernel counts, and live allocations are not counted.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// What the process uses now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Bytes allocated.
    pub heap: u64,
    /// Live allocations; 0 without the feature `jemalloc`.
    pub objects: u64,
    /// Bytes of the main thread's stack.
    pub stack: u64,
    /// Bytes in physical memory.
    pub resident: u64,
    /// Bytes of address space.
    pub mapped: u64,
    /// Threads.
    pub threads: u64,
}

/// Asks the allocator and the kernel.
pub fn usage() -> Usage {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (heap, objects) = heap(&status);
    Usage {
        heap,
        objects,
        stack: field(&status, "VmStk:") * 1_024,
        resident: field(&status, "VmRSS:") * 1_024,
        mapped: field(&status, "VmSize:") * 1_024,
        threads: field(&status, "Threads:"),
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes and allocations that live.
#[cfg(feature = "jemalloc")]
#[expect(unsafe_code, reason = "reads counters that the safe interface lacks")]
fn heap(_status: &str) -> (u64, u64) {
    use tikv_jemalloc_ctl::{epoch, raw, stats};

    // The allocator's figures are as of the last advance.
    let _ = epoch::advance();
    // 4096 stands for all arenas together (MALLCTL_ARENAS_ALL).
    let read = |name: &'static [u8]| {
        // SAFETY: the name ends with NUL, and the manual gives the value's type as uint64_t.
        unsafe { raw::read::<u64>(name) }.unwrap_or(0)
    };
    let made = read(b"stats.arenas.4096.small.nmalloc\0") + read(b"stats.arenas.4096.large.nmalloc\0");
    let freed = read(b"stats.arenas.4096.small.ndalloc\0") + read(b"stats.arenas.4096.large.ndalloc\0");
    (stats::allocated::read().unwrap_or(0) as u64, made.saturating_sub(freed))
}

#[cfg(not(feature = "jemalloc"))]
fn heap(status: &str) -> (u64, u64) {
    (field(status, "RssAnon:") * 1_024, 0)
}

/// CPUs of the machine.
pub fn cpus() -> usize {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    online.trim().split(',').map(range).sum::<Option<usize>>().unwrap_or_else(usable_cpus)
}

/// CPUs this process may use, at least 1.
pub fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Whether memory is kept from being swapped out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// All of it is locked, what is allocated later included.
    Enabled,
    /// None of it is; says why. [`ALLOW_LOCK`] says how to change that.
    Disabled(String),
}

/// What lets the program lock its memory.
pub const ALLOW_LOCK: &str = "LimitMEMLOCK=infinity, 'ulimit -l unlimited' or CAP_IPC_LOCK";

/// Locks all memory, unless a finite limit would make later allocations fail.
pub fn lock() -> Lock {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    let capable = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if !unlimited && !capable {
        return Lock::Disabled("the limit RLIMIT_MEMLOCK is finite".into());
    }
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => Lock::Enabled,
        Err(error) => Lock::Disabled(format!("mlockall failed: {error}")),
    }
}

/// Makes sure that no core file and no debugger of the same user sees the keys.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
