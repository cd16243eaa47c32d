//! `claviger migrate` and `claviger verify` between key stores, and key managers.

mod aws;
mod clouds;
mod conflicts;
mod interruption;
mod key_manager;
mod latency;
mod progress;
mod report;
mod reseal;
mod secrets;
mod selection;
mod source;
mod static_key;
mod stores;
mod support;
mod syncs;
mod transcripts;
mod transit;
mod trouble;
mod verify;
