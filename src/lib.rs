//! Claviger: an open key server for object stores.
//!
//! The modules stand in the order in which they may import one another: a module knows those below
//! it, never those above. `ARCHITECTURE.md` draws the picture.

pub mod api; //        the KES API: the route table, one file a resource
pub mod auth; //       who calls (identity) and what they may do (policy)
pub mod cache; //      `Keys`: decoded keys, fetched once, expired by rule
pub mod cli; //        the command line: one file a command
pub mod client; //     a client of the KES API
pub mod config; //     the config file: joins the `Config` of every part
pub mod keys; //       where the KES API has its keys from
pub mod keystore; //   durable storage of opaque values under names
pub mod kms; //        the key manager: its route table, enclaves, their storage
pub mod migrate; //    copies keys from one key store to another
pub mod server; //     HTTP over mTLS and nothing more
pub mod vault; //      the Vault-compatible API of the key manager

// These know nothing of ours; anybody may use them.
pub mod certificates; // files of certificates: read, and watched for changes
pub mod clock; //      the wall clock and a monotonic one
pub mod crypto; //     keys, ciphertexts, secrets: no I/O, no async, no clock
pub mod duration; //   durations as the config file writes them
pub mod etcd; //       a client of etcd: one cluster, whichever member answers
pub mod foreign; //    text that others wrote, made harmless
pub mod hex; //        bytes as hexadecimal text
pub mod http; //       outbound HTTP: one client, one loader of CAs, one limit on answers
pub mod memory; //     the allocator, the memory lock, core dumps
pub mod moment; //     moments that every format can write
pub mod name; //       names and listing patterns, valid by construction
pub mod operation; //  methods and paths that belong together
pub mod setting; //    settings of the config file that several parts have
pub mod telemetry; //  log, audit, metrics
pub mod text; //       counts and lists as people read them
