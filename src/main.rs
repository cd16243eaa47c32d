//! The `claviger` program: parse, run, exit code; nothing else.

use std::process::ExitCode;

/// Measures what the server's heap holds, and keeps it small; see `memory`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    claviger::cli::main(std::env::args_os())
}
