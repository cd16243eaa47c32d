//! The messages of etcd's API, as far as they are used here. The numbers are those of etcd's `rpc.proto` and `kv.proto`.

use std::fmt;

use prost::{Message, Oneof};
use zeroize::Zeroize;

/// Declares that a field of a message is secret: it is wiped on drop, and the message prints nothing.
macro_rules! secret {
    ($message:ident, $field:ident) => {
        impl Drop for $message {
            fn drop(&mut self) {
                Zeroize::zeroize(&mut self.$field);
            }
        }

        impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), "(redacted)"))
            }
        }
    };
}

/// A request, the call that it is for, and the answer that it gets.
pub trait Call: Message + Clone + 'static {
    /// The answer.
    type Answer: Answer;
    /// The path of the call.
    const PATH: &'static str;

    /// Whether the call is a stream, of which one request and one answer are used.
    const IS_STREAM: bool = false;

    /// Whether it changes something, so that nobody but the caller knows whether it may be sent twice.
    fn writes(&self) -> bool;
}

/// An answer. Each says which cluster gave it.
pub trait Answer: Message + Default + 'static {
    /// Its header; none: etcd has not written it.
    fn header(&self) -> Option<&ResponseHeader>;
}

/// Ties a request to its path and its answer.
macro_rules! call {
    ($request:ident => $path:literal, $answer:ident, $writes:expr) => {
        impl Call for $request {
            type Answer = $answer;
            const PATH: &'static str = concat!("/etcdserverpb.", $path);

            fn writes(&self) -> bool {
                $writes(self)
            }
        }

        impl Answer for $answer {
            fn header(&self) -> Option<&ResponseHeader> {
                self.header.as_ref()
            }
        }
    };
}

mod lease;
mod watch;

pub use self::lease::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse,
};
pub use self::watch::{Event, EventKind, ProgressRequest, WatchCreateRequest, WatchRequest, WatchResponse, Watching};

fn never<T>(_: &T) -> bool {
    false
}

fn always<T>(_: &T) -> bool {
    true
}

call!(RangeRequest => "KV/Range", RangeResponse, never);
call!(DeleteRangeRequest => "KV/DeleteRange", DeleteRangeResponse, always);
call!(TxnRequest => "KV/Txn", TxnResponse, TxnRequest::has_writes);
call!(AuthenticateRequest => "Auth/Authenticate", AuthenticateResponse, never);
call!(StatusRequest => "Maintenance/Status", StatusResponse, never);
call!(MemberListRequest => "Cluster/MemberList", MemberListResponse, never);

/// Who answered, and at which revision.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseHeader {
    /// The cluster.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The member.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// The revision of the whole cluster.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// Reads keys from `key` up to `range_end`, which is not read; an empty end: `key` alone.
#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The first key that is not read.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// The most keys; 0: all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// The revision to read at; 0: the newest, which the members agree on for this read.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// Whether values are left out.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
}

/// What was read.
#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The keys, in order.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// Whether there are keys beyond the limit.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// A key and its value.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The revision of its last change.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// The value.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    /// The lease that it ends with; 0: none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

secret!(KeyValue, value);

/// Stores a value.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// The lease that it ends with; 0: none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
}

secret!(PutRequest, value);

impl PutRequest {
    /// Stores a value for good.
    pub fn new(key: Vec<u8>, value: &[u8]) -> Self {
        Self::under(0, key, value)
    }

    /// Stores a value until a lease ends.
    pub fn under(lease: i64, key: Vec<u8>, value: &[u8]) -> Self {
        Self { key, value: value.into(), lease }
    }
}

/// A value is stored.
#[derive(Clone, PartialEq, Message)]
pub struct PutResponse {}

/// Removes keys; the range is that of [`RangeRequest`].
#[derive(Clone, PartialEq, Message)]
pub struct DeleteRangeRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The first key that stays.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
}

/// Keys are removed.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteRangeResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// How many there were.
    #[prost(int64, tag = "2")]
    pub deleted: i64,
}

/// Does `success` if all comparisons hold, else `failure`, in one step.
#[derive(Clone, PartialEq, Message)]
pub struct TxnRequest {
    /// The comparisons.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What is done if they hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// What is done if one of them does not.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

/// A transaction is done.
#[derive(Clone, PartialEq, Message)]
pub struct TxnResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Whether the comparisons held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// The answer to each operation that was done.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

impl TxnRequest {
    /// Does these if the conditions hold, else nothing.
    pub fn when(compare: Vec<Compare>, success: Vec<Request>) -> Self {
        let success = success.into_iter().map(RequestOp::from).collect();
        Self { compare, success, failure: Vec::new() }
    }

    /// Does these if one of the conditions does not hold.
    #[must_use]
    pub fn otherwise(mut self, failure: Request) -> Self {
        self.failure.push(failure.into());
        self
    }

    fn has_writes(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|op| match &op.request {
            Some(Request::Range(_)) | None => false,
            Some(Request::Txn(nested)) => nested.has_writes(),
            Some(Request::Put(_) | Request::DeleteRange(_)) => true,
        })
    }
}

/// An operation of a transaction.
#[derive(Clone, PartialEq, Message)]
pub struct RequestOp {
    /// The operation.
    #[prost(oneof = "Request", tags = "1, 2, 3, 4")]
    pub request: Option<Request>,
}

/// The kinds of operations.
#[derive(Clone, PartialEq, Oneof)]
pub enum Request {
    /// Reads.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// Stores.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// Removes.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    /// A transaction inside of this one.
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

impl From<Request> for RequestOp {
    fn from(request: Request) -> Self {
        Self { request: Some(request) }
    }
}

/// The answer to an operation.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseOp {
    /// The answer.
    #[prost(oneof = "Response", tags = "1, 2, 3, 4")]
    pub response: Option<Response>,
}

/// The answers to the kinds of operations.
#[derive(Clone, PartialEq, Oneof)]
pub enum Response {
    /// Of a read.
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    /// Of a put.
    #[prost(message, tag = "2")]
    Put(PutResponse),
    /// Of a removal.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
    /// Of a transaction.
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
}

/// A condition on a key.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct Compare {
    /// How it is compared.
    #[prost(enumeration = "Comparison", tag = "1")]
    pub result: i32,
    /// What is compared.
    #[prost(enumeration = "Target", tag = "2")]
    pub target: i32,
    /// The key.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// What it is compared with.
    #[prost(oneof = "Operand", tags = "5, 6, 7, 8")]
    pub operand: Option<Operand>,
    /// The first key that is not compared; empty: `key` alone is.
    #[prost(bytes = "vec", tag = "64")]
    pub range_end: Vec<u8>,
}

secret!(Compare, operand);

impl Compare {
    /// A condition on one key.
    pub fn new(key: &[u8], result: Comparison, operand: Operand) -> Self {
        let target = match operand {
            Operand::Create(_) => Target::Create,
            Operand::Mod(_) => Target::Mod,
            Operand::Value(_) => Target::Value,
            Operand::Lease(_) => Target::Lease,
        };
        let (result, target, operand) = (result.into(), target.into(), Some(operand));
        Self { result, target, key: key.into(), operand, range_end: Vec::new() }
    }

    /// The condition that there is no such key.
    pub fn absent(key: &[u8]) -> Self {
        Self::new(key, Comparison::Equal, Operand::Create(0))
    }

    /// The same condition on all keys from that one up to `range_end`.
    #[must_use]
    pub fn up_to(mut self, range_end: Vec<u8>) -> Self {
        self.range_end = range_end;
        self
    }
}

/// How something is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Comparison {
    /// It is the same.
    Equal = 0,
    /// It is greater.
    Greater = 1,
    /// It is less.
    Less = 2,
    /// It is another.
    NotEqual = 3,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Target {
    /// The revision at which the key was created; 0: there is no such key.
    Create = 1,
    /// The revision of its last change.
    Mod = 2,
    /// The value.
    Value = 3,
    /// The lease that the key ends with; 0: none.
    Lease = 4,
}

/// What something is compared with.
#[derive(Clone, PartialEq, Oneof)]
#[prost(skip_debug)]
pub enum Operand {
    /// A revision of creation.
    #[prost(int64, tag = "5")]
    Create(i64),
    /// A revision of a change.
    #[prost(int64, tag = "6")]
    Mod(i64),
    /// A value.
    #[prost(bytes = "vec", tag = "7")]
    Value(Vec<u8>),
    /// A lease.
    #[prost(int64, tag = "8")]
    Lease(i64),
}

impl Zeroize for Operand {
    fn zeroize(&mut self) {
        if let Self::Value(value) = self {
            value.zeroize();
        }
    }
}

impl fmt::Debug for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operand(redacted)")
    }
}

/// Logs in.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct AuthenticateRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub password: String,
}

secret!(AuthenticateRequest, password);

/// Somebody has logged in.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct AuthenticateResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The token for the calls that follow.
    #[prost(string, tag = "2")]
    pub token: String,
}

secret!(AuthenticateResponse, token);

/// Asks a member how it is.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct StatusRequest {}

/// How a member is.
#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The version of etcd.
    #[prost(string, tag = "2")]
    pub version: String,
    /// How large its file is, in bytes.
    #[prost(int64, tag = "3")]
    pub db_size: i64,
    /// The member that leads; 0: none.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    /// What is wrong, such as an alarm.
    #[prost(string, repeated, tag = "8")]
    pub errors: Vec<String>,
    /// How much of its file is in use, in bytes.
    #[prost(int64, tag = "9")]
    pub db_size_in_use: i64,
    /// How large its file may be, in bytes; 0: it does not say.
    #[prost(int64, tag = "12")]
    pub db_size_quota: i64,
}

/// Asks for the members of the cluster.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct MemberListRequest {}

/// The members of the cluster.
#[derive(Clone, PartialEq, Message)]
pub struct MemberListResponse {
    /// Who answered.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The members.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

/// A member of the cluster.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Member {
    /// Whether it has no vote.
    #[prost(bool, tag = "5")]
    pub is_learner: bool,
}
