//! A client of the key manager.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::Incoming;
use prost::Message;
use zeroize::Zeroizing;

use super::{BINARY, Call, Client, Endpoint, Error, Failure, Lost};
use crate::kms::wire::{ErrResponse, Frame, LogRecord, LogRequest, VersionResponse, append, frames};
use crate::kms::{Action, operations};
use crate::operation::Operation;

/// The longest record of a log, in bytes.
const MAX_RECORD: usize = 64 * 1024;

/// Commands for a server: only reads, or only writes.
#[derive(Default)]
pub struct Commands(Zeroizing<Vec<u8>>);

impl Commands {
    /// One command.
    pub fn one(action: Action, message: &impl Message) -> Self {
        Self::default().and(action, message)
    }

    /// Adds one more command.
    #[must_use]
    pub fn and(self, action: Action, message: &impl Message) -> Self {
        self.and_all(action, std::slice::from_ref(message))
    }

    /// Adds commands with the same action.
    #[must_use]
    pub fn and_all(mut self, action: Action, messages: &[impl Message]) -> Self {
        let more: usize = messages.iter().map(|message| 6 + message.encoded_len()).sum();
        // Of the full size: a buffer that grew would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.0.len() + more));
        bytes.extend_from_slice(&self.0);
        for message in messages {
            append(action.number(), &Zeroizing::new(message.encode_to_vec()), &mut bytes);
        }
        self.0 = bytes;
        self
    }
}

impl Client {
    /// Sends commands that change something in this enclave. The server does all of them or none.
    ///
    /// # Errors
    /// When the server refuses, or no server answers.
    pub async fn change(&self, enclave: &str, commands: Commands) -> Result<(), Error> {
        self.nothing(call(enclave, commands, true)).await
    }

    /// Sends one read to this enclave.
    ///
    /// # Errors
    /// When the server refuses, no server answers, or the answer is invalid.
    pub async fn ask<M: Message + Default>(
        &self,
        enclave: &str,
        action: Action,
        message: &impl Message,
    ) -> Result<M, Error> {
        let mut replies = self.ask_all(enclave, action, std::slice::from_ref(message)).await?;
        Ok(replies.pop().expect("as many replies as commands"))
    }

    /// Sends many reads with replies of one type in one request. Returns a reply for each, in order, or one error for
    /// all.
    ///
    /// # Errors
    /// When the server refuses a command, no server answers, or the answer is invalid.
    pub async fn ask_all<M: Message + Default>(
        &self,
        enclave: &str,
        action: Action,
        messages: &[impl Message],
    ) -> Result<Vec<M>, Error> {
        let call = call(enclave, Commands::default().and_all(action, messages), false);
        let (endpoint, body) = self.body(&call).await?;
        let reply = |frame: Frame<'_>| (frame.command == action.number()).then(|| M::decode(frame.message).ok())?;
        let replies: Option<Vec<_>> = frames(&body).map(|frame| frame.ok().and_then(reply)).collect();
        let replies = replies.filter(|replies| replies.len() == messages.len());
        replies.ok_or_else(|| nonsense(endpoint, call.path, "it does not hold one reply to each command"))
    }

    /// Sends prepared reads as they are, and returns the frames of the reply.
    ///
    /// # Errors
    /// When the server refuses, or no server answers.
    pub async fn send_commands(&self, enclave: &str, commands: Commands) -> Result<Zeroizing<Vec<u8>>, Error> {
        Ok(self.body(&call(enclave, commands, false)).await?.1)
    }

    /// `GET /version` of a key manager.
    ///
    /// # Errors
    /// When no server answers, or the answer is invalid.
    pub async fn kms_version(&self) -> Result<VersionResponse, Error> {
        let call = binary(operations::VERSION, Bytes::new());
        let (endpoint, body) = self.body(&call).await?;
        VersionResponse::decode(&**body).map_err(|_| nonsense(endpoint, call.path, "it is no version"))
    }

    /// `GET /v1/health/ready` of a key manager: whether it can serve requests.
    ///
    /// # Errors
    /// When it cannot, or no server answers.
    pub async fn kms_ready(&self) -> Result<(), Error> {
        self.body(&binary(operations::READY, Bytes::new())).await.map(drop)
    }

    /// `GET /v1/db`: a backup of all data, encrypted.
    ///
    /// # Errors
    /// When the server refuses, or no server answers.
    pub async fn backup(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let call = binary(operations::BACKUP, Bytes::new());
        let (endpoint, response) = self.send(&call, None).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(&call, endpoint, response).await);
        }
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| broken(endpoint, error))?;
        Ok(Zeroizing::new(body.to_bytes().to_vec()))
    }

    /// `PUT /v1/db`: replaces all data by a backup.
    ///
    /// # Errors
    /// When the server refuses, or no server answers.
    pub async fn restore(&self, backup: Vec<u8>) -> Result<(), Error> {
        self.long(binary(operations::RESTORE, backup.into())).await
    }

    /// `PUT /v1/db/join`: moves all data into the cluster of the server's config.
    ///
    /// # Errors
    /// When the server refuses, or no server answers.
    pub async fn move_in(&self) -> Result<(), Error> {
        self.long(binary(operations::MOVE_IN, Bytes::new())).await
    }

    /// `PUT /v1/db/leave`: moves all data out of the cluster.
    ///
    /// # Errors
    /// When the server refuses, or no server answers.
    pub async fn move_out(&self) -> Result<(), Error> {
        self.long(binary(operations::MOVE_OUT, Bytes::new())).await
    }

    /// `PUT /v1/db/root`: encrypts all data under a new root key.
    ///
    /// # Errors
    /// When the server refuses, or no server answers.
    pub async fn rotate_root(&self) -> Result<(), Error> {
        self.long(binary(operations::ROTATE_ROOT, Bytes::new())).await
    }

    /// Sends what may take long.
    async fn long(&self, call: Call) -> Result<(), Error> {
        let (endpoint, response) = self.send(&call, None).await?;
        if response.status() == StatusCode::OK { Ok(()) } else { Err(self.refusal(&call, endpoint, response).await) }
    }

    /// `POST /v1/debug/log`: streams records of the log.
    ///
    /// # Errors
    /// When the server refuses, or no server answers.
    pub async fn records(&self, request: &LogRequest) -> Result<Records, Error> {
        let call = binary(operations::LOG, request.encode_to_vec().into());
        let (endpoint, response) = self.send(&call, None).await?;
        match response.status() {
            StatusCode::OK => {
                Ok(Records { endpoint: endpoint.clone(), body: response.into_body(), buffer: BytesMut::new() })
            }
            _ => Err(self.refusal(&call, endpoint, response).await),
        }
    }
}

/// A stream of log records.
pub struct Records {
    endpoint: Endpoint,
    body: Incoming,
    buffer: BytesMut,
}

impl Records {
    /// The next record; `None` when the server has ended the stream.
    ///
    /// # Errors
    /// When the connection is lost, or a record is invalid.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, Error> {
        let wrong =
            |endpoint: &Endpoint| nonsense(endpoint.clone(), operations::LOG.path.into(), "it is no record of a log");
        loop {
            if let Some(len) = self.buffer.first_chunk() {
                let len = u32::from_be_bytes(*len) as usize;
                if len > MAX_RECORD {
                    return Err(wrong(&self.endpoint));
                }
                if self.buffer.len() >= 4 + len {
                    let frame = self.buffer.split_to(4 + len);
                    return LogRecord::decode(&frame[4..]).map(Some).map_err(|_| wrong(&self.endpoint));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(broken(&self.endpoint, error)),
                None => return Ok(None),
            }
        }
    }
}

/// The message of an error answer in protobuf.
pub(super) fn error_message(body: &[u8]) -> Option<String> {
    ErrResponse::decode(body).ok().map(|response| response.message).filter(|message| !message.is_empty())
}

fn call(enclave: &str, commands: Commands, changes: bool) -> Call {
    let body = Bytes::from_owner(commands.0);
    Call { body, content_type: BINARY, changes, ..Call::new(operations::EXECUTE, enclave) }
}

fn binary(operation: Operation, body: Bytes) -> Call {
    Call { body, content_type: BINARY, ..Call::of(operation) }
}

fn nonsense(endpoint: Endpoint, path: String, what: &str) -> Error {
    Error::Nonsense { endpoint, path, what: what.to_owned() }
}

fn broken(endpoint: &Endpoint, error: hyper::Error) -> Error {
    Error::Unreachable(vec![Failure { endpoint: endpoint.clone(), cause: Lost::Broken(error) }])
}
