//! The members of a cluster: a connection to each, and which of them is asked.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{Stream, stream};
use hyper::http::uri::PathAndQuery;
use prost::Message;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::message::{Call, WatchRequest, WatchResponse};
use super::watch::WATCH;
use crate::certificates::Fingerprint;
use crate::http::{self, TlsError};
use crate::setting::Url;
use crate::telemetry::log;

/// The largest answer that is read, in bytes: a batch of the largest values.
const MAX_ANSWER: usize = 16 << 20;

/// How often a connection that is silent is asked for a sign of life, and how long that may take.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);

/// All members, and the one that is asked now.
#[derive(Debug)]
pub(super) struct Members {
    endpoints: Vec<Url>,
    tls: http::Tls,
    connections: ArcSwap<Connections>,
    /// Counts how often a member was left for the next one.
    turn: AtomicUsize,
}

/// Connections that were made with the files as they were.
#[derive(Debug)]
struct Connections {
    channels: Vec<Channel>,
    files: Fingerprint,
}

/// The member that is asked.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) endpoint: String,
    channel: Channel,
    connections: Arc<Connections>,
    turn: usize,
}

impl Members {
    pub(super) fn new(endpoints: &[Url], tls: http::Tls) -> Result<Self, TlsError> {
        let connections = ArcSwap::from_pointee(Connections::new(endpoints, &tls)?);
        Ok(Self { endpoints: endpoints.to_vec(), tls, connections, turn: AtomicUsize::new(0) })
    }

    pub(super) fn count(&self) -> usize {
        self.endpoints.len()
    }

    pub(super) fn current(&self) -> Member {
        self.at(self.turn.load(Ordering::Relaxed))
    }

    /// All of them, from the current one on.
    pub(super) fn all(&self) -> Vec<Member> {
        let turn = self.turn.load(Ordering::Relaxed);
        (0..self.count()).map(|n| self.at(turn.wrapping_add(n))).collect()
    }

    fn at(&self, turn: usize) -> Member {
        let (index, connections) = (turn % self.endpoints.len(), self.connections.load_full());
        let (endpoint, channel) = (self.endpoints[index].to_string(), connections.channels[index].clone());
        Member { endpoint, channel, connections, turn }
    }

    /// From now on the next one is asked. Certificates that were renewed meanwhile are used.
    pub(super) fn leave(&self, member: &Member) {
        // Several calls may have failed at the same member: it is left once.
        let next = member.turn.wrapping_add(1);
        let _ = self.turn.compare_exchange(member.turn, next, Ordering::Relaxed, Ordering::Relaxed);
        if self.tls.files() == member.connections.files {
            return;
        }
        match Connections::new(&self.endpoints, &self.tls) {
            Ok(connections) => self.connections.store(Arc::new(connections)),
            // They may be about to be replaced: the old ones are as good as any.
            Err(error) => tracing::warn!(cause = log::causes(&error), "changed TLS files cannot be used"),
        }
    }
}

impl Connections {
    fn new(endpoints: &[Url], tls: &http::Tls) -> Result<Self, TlsError> {
        let files = tls.files();
        let connector = tls.connector()?.enable_http2().wrap_connector(http::tcp());
        let connect = |url: &Url| {
            let endpoint = Endpoint::from_shared(url.to_string()).expect("a Url is a URI");
            let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PONG);
            endpoint.connect_with_connector_lazy(connector.clone())
        };
        Ok(Self { channels: endpoints.iter().map(connect).collect(), files })
    }
}

impl Member {
    /// Sends one request, once.
    pub(super) async fn send<C: Call>(&self, message: C, token: Option<&SecretString>) -> Result<C::Answer, Status> {
        if C::IS_STREAM {
            let message = stream::once(ready(message));
            let mut answers = self.stream(C::PATH, request(message, token)?).await?;
            return answers.message().await?.ok_or_else(|| Status::unavailable("the member has ended the call"));
        }
        let path = PathAndQuery::from_static(C::PATH);
        let answer = self.grpc().await?.unary(request(message, token)?, path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    /// Watches as the requests say. A member without a leader ends that, instead of saying nothing for ever.
    pub(super) async fn watch(
        &self,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
        token: Option<&SecretString>,
    ) -> Result<Streaming<WatchResponse>, Status> {
        let mut request = request(requests, token)?;
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        self.stream(WATCH, request).await
    }

    async fn stream<Q: Message + 'static, A: Message + Default + 'static>(
        &self,
        path: &'static str,
        request: Request<impl Stream<Item = Q> + Send + 'static>,
    ) -> Result<Streaming<A>, Status> {
        let path = PathAndQuery::from_static(path);
        let answers = self.grpc().await?.streaming(request, path, ProstCodec::default()).await?;
        Ok(answers.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }
}

/// A request with the token of a login.
fn request<T>(message: T, token: Option<&SecretString>) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let token = token.expose_secret().parse::<MetadataValue<Ascii>>();
        let mut token = token.map_err(|_| Status::internal("the token is no text"))?;
        token.set_sensitive(true);
        request.metadata_mut().insert("token", token);
    }
    Ok(request)
}
