//! The command line.

pub mod fixture;
mod golden;
mod identity;
mod replay;
mod template;
mod terminal;
