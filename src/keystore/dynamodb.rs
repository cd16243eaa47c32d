//! Amazon DynamoDB: each key is an item of one table, in the partition of its server or tenant.

#[cfg(feature = "aws")]
mod answer;
#[cfg(feature = "aws")]
mod batch;
mod config;
#[cfg(feature = "aws")]
mod keystore;
#[cfg(feature = "aws")]
mod place;
#[cfg(feature = "aws")]
mod rights;
#[cfg(feature = "aws")]
mod store;
#[cfg(feature = "aws")]
mod table;

pub use self::config::{Config, Partition, Table};
#[cfg(feature = "aws")]
pub use self::store::Store;
