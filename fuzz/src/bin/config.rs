#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

/// Where a config can be loaded from, in memory.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| PathBuf::from(format!("/dev/shm/claviger-fuzz-{}.yml", std::process::id())));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| claviger_fuzz::config(bytes, &FILE));
