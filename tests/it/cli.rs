//! The command line.

mod fixture;
mod identity;
mod replay;
mod template;
