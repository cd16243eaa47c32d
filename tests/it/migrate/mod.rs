//! `claviger migrate` and `claviger verify` between key stores, and key managers.

mod aws;
mod clouds;
mod conflicts;
mod interruption;
mod key_manager;
mod progress;
mod report;
mod reseal;
mod secrets;
mod selection;
mod source;
mod speed;
mod static_key;
mod stores;
pub mod support;
mod syncs;
mod transcripts;
mod transit;
mod trouble;
mod verify;
