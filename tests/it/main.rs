//! The program seen from outside: its socket and its command line.

#![expect(clippy::disallowed_methods, reason = "tests wait for other processes")]
#![expect(clippy::print_stderr, reason = "a failed test shows what its server said")]

mod curl;
mod prometheus;
mod proxy;
mod replay;
mod support;
