//! Who calls (identity) and what they may do (policy).

pub mod identity;
pub mod policy;

pub use identity::Identity;
