//! Metrics of the process: under the names that the archived server gave them, and under those that Prometheus's own
//! clients have.

use std::time::Instant;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::metrics::Text;
use crate::memory;

/// Writes the `kes_system_*` and `process_*` metrics of a process that began at `started`.
pub fn write_metrics(text: &mut Text, started: Instant) {
    let memory = memory::usage();
    text.gauge("kes_system_up_time", "Seconds since the start.", started.elapsed().as_secs_f64());
    text.gauge("kes_system_num_cpu", "CPUs of the machine.", memory::cpus());
    text.gauge("kes_system_num_cpu_used", "CPUs the server may use.", memory::usable_cpus());
    text.gauge("kes_system_num_threads", "Threads of the server.", memory.threads);
    text.gauge("kes_system_mem_heap_used", "Bytes allocated on the heap.", memory.heap);
    text.gauge("kes_system_mem_heap_objects", "Allocations on the heap.", memory.objects);
    text.gauge("kes_system_mem_stack_used", "Bytes of the main thread's stack.", memory.stack);
    text.gauge("process_resident_memory_bytes", "Bytes in physical memory.", memory.resident);
    text.gauge("process_virtual_memory_bytes", "Bytes of address space.", memory.mapped);
    text.counter("process_cpu_seconds_total", "CPU time used, in seconds.", cpu_seconds());
    if let Some(open) = open_files() {
        text.gauge("process_open_fds", "Open file descriptors.", open);
    }
    let most = getrlimit(Resource::Nofile).current;
    let most = most.map_or_else(|| "+Inf".into(), |most| most.to_string());
    text.gauge("process_max_fds", "The most file descriptors that may be open.", most);
}

/// Writes what was built from which commit. It has labels.
pub fn write_build_info(text: &mut Text, version: &str, commit: &str) {
    let name = "claviger_build_info";
    text.family(name, "gauge", "Always 1; the labels say what was built from which commit.");
    text.sample(&format!("{name}{{version=\"{version}\",commit=\"{commit}\"}}"), 1);
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// None where there is no `/proc`.
fn open_files() -> Option<usize> {
    // The directory that is read is one of them.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}
