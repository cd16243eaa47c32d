//! One client's connection from the handshake over its requests to its end.

mod heard;
mod plain;

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::heard::Heard;
use super::connection::{Connection, End};
use super::serve::serve;
use super::streams::Executor;
use super::{Service, Shared};
use crate::auth::peer;
use crate::clock;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Requests that one HTTP/2 connection may have in flight.
const MAX_STREAMS: u32 = 250;

/// How much of a stream that goes on may wait for the client to take it, in bytes.
const MAX_UNSENT: usize = 64 * 1024;

/// The largest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Serves a connection until it ends.
pub(super) async fn run<S: Service>(shared: Arc<Shared<S>>, connection: Arc<Connection>, socket: TcpStream) {
    // Boxed: the handshake's state is large and soon freed, while the connection stays.
    let Some(tls) = Box::pin(establish(&shared, &connection, socket)).await else { return };
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = {
        let connection = connection.clone();
        service_fn(move |request| {
            let (shared, connection) = (shared.clone(), connection.clone());
            // Boxed, because HTTP/2 moves it five times before it runs.
            Box::pin(async move { Ok::<_, std::convert::Infallible>(serve(&shared, connection, request).await) })
        })
    };
    if is_http2 {
        let mut builder = http2::Builder::new(Executor);
        builder.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEAD as u32);
        builder.max_send_buf_size(MAX_UNSENT);
        until_end(pin!(builder.serve_connection(TokioIo::new(tls), service)), &connection, End::Leave).await;
    } else {
        let mut builder = http1::Builder::new();
        // hyper's timer would also run while a connection is idle. `Connection::check` has our own.
        builder.max_buf_size(MAX_HEAD).header_read_timeout(None);
        let io = Heard::new(TokioIo::new(tls), connection.clone());
        until_end(pin!(builder.serve_connection(io, service)), &connection, End::Drain).await;
    }
}

/// Answers requests until the client closes or [`Connection::end`] is called. From `last` on no new requests are
/// accepted.
async fn until_end(mut served: Pin<&mut impl GracefulConnection>, connection: &Connection, last: End) {
    for at_least in [last, End::Close] {
        let (mut ended, mut seen) = (pin!(connection.ended(at_least)), None);
        let is_over = poll_fn(|context| {
            // Errors of the connection are the client's, and are not logged.
            if served.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            // This runs on every event of the connection, and reading the flag is cheaper than polling the future.
            let end = Some(connection.ending());
            if seen == end {
                return Poll::Pending;
            }
            seen = end;
            ended.as_mut().poll(context).map(|()| false)
        });
        if is_over.await || connection.is_ending(End::Close) {
            return;
        }
        served.as_mut().graceful_shutdown();
    }
}

/// Does the handshake, within its time limit; none with a client that speaks no TLS. A failure is logged.
async fn establish<S: Service>(
    shared: &Shared<S>,
    connection: &Connection,
    socket: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let failed = |error: &dyn Display| shared.denials.note_handshake(error, connection.ip(), clock::instant());
    tokio::select! {
        tls = tokio::time::timeout(HANDSHAKE, handshake(shared, connection, socket)) => match tls {
            Ok(Ok(tls)) => return tls,
            Ok(Err(error)) => failed(&error),
            Err(_) => failed(&"it took too long"),
        },
        _ = connection.ended(End::Drain) => {}
    }
    None
}

async fn handshake<S: Service>(
    shared: &Shared<S>,
    connection: &Connection,
    socket: TcpStream,
) -> std::io::Result<Option<TlsStream<TcpStream>>> {
    if plain::is_http(&socket).await? {
        shared.denials.note_plain_http(connection.ip(), clock::instant());
        plain::refuse(socket).await?;
        return Ok(None);
    }
    let snapshot = shared.snapshot.load_full();
    let tls = TlsAcceptor::from(snapshot.tls.config.clone()).accept(socket).await?;
    let session = tls.get_ref().1;
    let chain: Vec<_> =
        session.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    // A resumed session brings certificates that were not verified in this handshake.
    let identity = if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        snapshot.tls.trust.identify(&chain)
    } else {
        peer::identify(chain.iter().map(AsRef::as_ref))
    };
    connection.meet(chain, identity, &snapshot.tls.trust);
    Ok(Some(tls))
}
