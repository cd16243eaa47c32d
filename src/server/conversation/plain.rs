//! Clients that speak HTTP without TLS: they are told so.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How the requests of HTTP begin. A TLS handshake begins with none of these letters.
const METHODS: [&[u8]; 10] = [b"GET ", b"PUT ", b"POST", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI "];

const ANSWER: &str = "\
    HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 81\r\n\
    Connection: close\r\n\
    \r\n\
    Client sent an HTTP request to an HTTPS server: use https:// instead of http://.\n";

/// How long, and how much, the client may go on sending. Closed at once, the connection would be reset before the client
/// has read the answer.
const LINGER: (Duration, u64) = (Duration::from_secs(2), 64 * 1024);

/// Whether a client begins with HTTP. What it has sent is still there to be read.
pub(super) async fn is_http(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 4];
    let len = socket.peek(&mut first).await?;
    Ok(len > 0 && METHODS.iter().any(|method| method.starts_with(&first[..len])))
}

/// Says that this is the wrong protocol.
pub(super) async fn refuse(mut socket: TcpStream) -> io::Result<()> {
    socket.write_all(ANSWER.as_bytes()).await?;
    socket.shutdown().await?;
    let (time, bytes) = LINGER;
    let rest = async { tokio::io::copy(&mut socket.take(bytes), &mut tokio::io::sink()).await };
    let _ = tokio::time::timeout(time, rest).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let (head, body) = ANSWER.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
