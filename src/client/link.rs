//! Separate connections for load generators. Each request is built once and sent many times.

use std::sync::Arc;

use hyper::StatusCode;

use super::connection::Connection;
use super::{Call, Client, Endpoint, Error, Failure, Lost, read};
use crate::api::operations;
use crate::api::wire::{DecryptRequest, EncryptRequest, GenerateRequest};

/// The protocol of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: one request at a time.
    H1,
    /// HTTP/2: many requests at a time.
    H2,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 => b"http/1.1",
            Self::H2 => b"h2",
        }
    }
}

/// A request that can be sent any number of times.
pub struct Prepared(Call);

impl Prepared {
    /// `PUT /v1/key/generate/`
    pub fn generate(name: &str, request: &GenerateRequest) -> Self {
        Self(Call::new(operations::KEY_GENERATE, name).with(request, request.context.len()))
    }

    /// `PUT /v1/key/encrypt/`
    pub fn encrypt(name: &str, request: &EncryptRequest) -> Self {
        Self(Call::new(operations::KEY_ENCRYPT, name).with(request, request.plaintext.len() + request.context.len()))
    }

    /// `PUT /v1/key/decrypt/`
    pub fn decrypt(name: &str, request: &DecryptRequest) -> Self {
        Self(Call::new(operations::KEY_DECRYPT, name).with(request, request.ciphertext.len() + request.context.len()))
    }
}

/// A connection to the first endpoint of a client.
pub struct Link {
    endpoint: Endpoint,
    connection: Connection,
}

/// Why a request on a link was not answered with 200.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The server refused.
    #[error("{0}")]
    Status(StatusCode),
    /// There is no answer.
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl Client {
    /// Opens a connection that is not shared with other calls.
    pub async fn link(&self, protocol: Protocol) -> Result<Link, Error> {
        let endpoint = self.endpoint().clone();
        let mut tls = rustls::ClientConfig::clone(&self.tls.config);
        tls.alpn_protocols = vec![protocol.alpn().to_vec()];
        match Connection::open(&endpoint, &Arc::new(tls)).await {
            Ok(connection) => Ok(Link { endpoint, connection }),
            Err(cause) => Err(Error::Unreachable(vec![Failure { endpoint, cause }])),
        }
    }
}

impl Link {
    /// Another handle on the same connection, if that can carry many requests at a time.
    pub fn share(&self) -> Option<Self> {
        Some(Self { endpoint: self.endpoint.clone(), connection: self.connection.share()? })
    }

    /// Sends a request and reads the whole answer, which must be a 200.
    pub async fn ask(&mut self, prepared: &Prepared) -> Result<(), Refusal> {
        if !self.connection.is_ready().await {
            return Err(Lost::Closed.into());
        }
        let response = self.connection.send(prepared.0.request(&self.endpoint)).await.map_err(Lost::Broken)?;
        let status = response.status();
        read(response.into_body()).await.map_err(Lost::Broken)?;
        if status == StatusCode::OK { Ok(()) } else { Err(Refusal::Status(status)) }
    }
}
