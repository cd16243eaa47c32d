//! A wire to a peer, whatever it speaks: it can go silent, break, or lead to somebody else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a peer may go on with what it was told before a broken wire is noticed.
const WORK: Duration = Duration::from_millis(500);

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What the peer says does not come through.
    Deaf,
    /// Nothing comes through, and nobody can connect.
    Cut,
}

/// A wire. Broken when dropped.
pub struct Wire {
    address: SocketAddr,
    peer: Arc<Mutex<SocketAddr>>,
    state: watch::Sender<State>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Wire {
    /// An open wire to the peer at this address.
    pub fn new(peer: SocketAddr) -> Self {
        let (stop, (state, seen)) = (CancellationToken::new(), watch::channel(State::Open));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let address = listener.local_addr().expect("its address");
        let peer = Arc::new(Mutex::new(peer));
        let thread = std::thread::spawn({
            let (stop, peer) = (stop.clone(), peer.clone());
            move || super::block_on(stop.run_until_cancelled(serve(listener, peer, seen))).unwrap_or_default()
        });
        Self { address, peer, state, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on what the peer says does not come through.
    pub fn go_deaf(&self) {
        self.state.send_replace(State::Deaf);
    }

    /// All connections break, and nobody can connect.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }

    /// Does something whose answer is lost: the peer hears it, then the connection breaks. Afterwards the wire is open.
    pub async fn lose_answer<T>(&self, something: impl Future<Output = T>) -> T {
        self.go_deaf();
        let lose = async {
            tokio::time::sleep(WORK).await;
            self.cut();
            // Long enough for all to see it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.open();
        };
        futures_util::future::join(something, lose).await.0
    }

    /// Leads to another peer. Connections to the one before break.
    pub async fn lead_to(&self, peer: SocketAddr) {
        *self.peer.lock().expect("no test panicked") = peer;
        self.cut();
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.open();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, peer: Arc<Mutex<SocketAddr>>, state: watch::Receiver<State>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        if *state.borrow() == State::Cut {
            continue;
        }
        let (to, mut state) = (*peer.lock().expect("no test panicked"), state.clone());
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(to).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((mut from_near, to_near), (from_far, mut to_far)) = (near.into_split(), far.into_split());
            let heard = state.clone();
            tokio::select! {
                _ = copy(&mut from_near, &mut to_far) => {}
                () = carry(from_far, to_near, heard) => {}
                _ = state.wait_for(|state| *state == State::Cut) => {}
            }
        });
    }
}

/// Carries what the peer says, unless the wire is deaf.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        if *state.borrow() == State::Open && to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
