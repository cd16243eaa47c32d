//! A long way to a peer: what is sent there arrives later, what comes back does not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The way. Closed when dropped.
pub struct Delay {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Delay {
    /// A way to the peer at this address on which every request takes so much longer, however many there are.
    pub fn new(peer: SocketAddr, latency: Duration) -> Self {
        let stop = CancellationToken::new();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let address = listener.local_addr().expect("its address");
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || super::block_on(stop.run_until_cancelled(serve(listener, peer, latency))).unwrap_or_default()
        });
        Self { address, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, peer: SocketAddr, latency: Duration) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(peer).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((from_near, mut to_near), (mut from_far, to_far)) = (near.into_split(), far.into_split());
            tokio::spawn(async move { copy(&mut from_far, &mut to_near).await });
            carry(from_near, to_far, latency).await;
        });
    }
}

/// Carries everything on, each part when its time has come.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, latency: Duration) {
    let (sender, mut under_way) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + latency, buffer[..len].to_vec())).is_err() {
                return;
            }
        }
    });
    while let Some((due, part)) = under_way.recv().await {
        sleep_until(due).await;
        if to.write_all(&part).await.is_err() {
            return;
        }
    }
}
