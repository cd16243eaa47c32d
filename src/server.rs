//! HTTP over mTLS and nothing more.

pub mod tls;
