//! The program seen from outside: its socket and its command line.

mod support;
