//! The `claviger` program: parse, run, exit code; nothing else.

use std::process::ExitCode;

/// Measures what the server's heap holds, and keeps it small; see `memory`.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The allocator's settings: threads give back what they keep in the way that was always good enough, since the newer one,
/// which looks at every size each time, costs 3 % of the instructions of a request. Pages that are no longer used go back
/// to the system within seconds, also when no request comes: a thread of the allocator's own sees to that. They are unmapped
/// (`retain`), since pages that are locked cannot be given back otherwise.
#[cfg(feature = "jemalloc")]
#[expect(unsafe_code, reason = "the allocator looks for its settings under this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 85] =
    b"experimental_tcache_gc:false,background_thread:true,dirty_decay_ms:2000,retain:false\0";

fn main() -> ExitCode {
    claviger::cli::main(std::env::args_os())
}
