//! The command line.

mod command_lines;
pub mod fixture;
mod golden;
mod identity;
mod ready;
mod replay;
mod reveal;
mod template;
mod terminal;
