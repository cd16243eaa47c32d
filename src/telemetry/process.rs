//! Metrics of the process, under the names that the archived server gave them.

use std::time::Instant;

use super::metrics::Text;
use crate::memory;

/// Writes the `kes_system_*` metrics of a process that began at `started`.
pub fn write_metrics(text: &mut Text, started: Instant) {
    let memory = memory::usage();
    text.gauge("kes_system_up_time", "Seconds since the start.", started.elapsed().as_secs_f64());
    text.gauge("kes_system_num_cpu", "CPUs of the machine.", memory::cpus());
    text.gauge("kes_system_num_cpu_used", "CPUs the server may use.", memory::usable_cpus());
    text.gauge("kes_system_num_threads", "Threads of the server.", memory.threads);
    text.gauge("kes_system_mem_heap_used", "Bytes allocated on the heap.", memory.heap);
    text.gauge("kes_system_mem_heap_objects", "Allocations on the heap.", memory.objects);
    text.gauge("kes_system_mem_stack_used", "Bytes of the main thread's stack.", memory.stack);
}
