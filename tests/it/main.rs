//! The program seen from outside: its socket and its command line.

#![expect(clippy::disallowed_methods, reason = "tests wait for other processes")]
#![expect(clippy::print_stderr, reason = "a failed test shows what its server said")]
#![expect(unreachable_pub, reason = "nothing outside can reach a test binary; 'pub' says what a module offers")]

mod api;
mod audit_file;
mod bench;
mod build;
mod check;
mod cli;
mod client;
mod config;
mod curl;
mod differences;
mod docs;
mod doctor;
mod exhaustion;
mod hostile;
mod identities;
mod init;
mod keystore;
mod kms;
mod lifecycle;
mod migrate;
mod model;
mod prometheus;
mod proxy;
mod reload;
mod replay;
mod replicas;
mod support;
mod telemetry;
mod vault;
mod vectors;
