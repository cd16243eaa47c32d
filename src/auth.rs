//! Who calls (identity) and what they may do (policy).

pub mod access;
pub mod api_key;
pub mod certificate;
pub mod enclave;
pub mod identity;
pub mod peer;
pub mod policy;
pub mod published;

pub use access::{Access, Caller, Denied, Requirement, admit};
pub use identity::Identity;
pub use policy::Policy;
