//! Leases: how long keys last whose writer has gone.

use prost::Message;

use super::{Answer, Call, ResponseHeader, never};

// Twice granted, one of them ends by itself; twice ended is ended.
call!(LeaseGrantRequest => "Lease/LeaseGrant", LeaseGrantResponse, never);
call!(LeaseRevokeRequest => "Lease/LeaseRevoke", LeaseRevokeResponse, never);

/// Begins a lease.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct LeaseGrantRequest {
    /// How long it lasts, in seconds.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
}

/// A lease has begun.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseGrantResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Its id.
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// Ends a lease.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct LeaseRevokeRequest {
    /// Its id.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// A lease has ended.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseRevokeResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Lets a lease begin anew.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct LeaseKeepAliveRequest {
    /// Its id.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

impl Call for LeaseKeepAliveRequest {
    type Answer = LeaseKeepAliveResponse;
    const PATH: &'static str = "/etcdserverpb.Lease/LeaseKeepAlive";
    const IS_STREAM: bool = true;

    fn writes(&self) -> bool {
        false
    }
}

/// A lease has begun anew, or had ended.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseKeepAliveResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// How long it lasts from now on, in seconds; 0: it had ended.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

impl Answer for LeaseKeepAliveResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }
}
