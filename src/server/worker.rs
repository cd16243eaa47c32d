//! Workers: threads that serve connections, each with a runtime of its own.
//!
//! A connection stays on the thread that got it. So replies that become ready together leave in one write, which on
//! HTTP/2 saves a third of all CPU time (`docs/measurements.md`). The thread that accepts is a worker, too. Each new
//! connection goes to the worker with the fewest connections. All servers of a process share its workers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::sync::mpsc;

type Task = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The threads that serve connections.
pub struct Workers {
    here: Load,
    others: Vec<Worker>,
}

struct Worker {
    queue: mpsc::UnboundedSender<Task>,
    load: Load,
}

/// Counts the connections of a worker.
#[derive(Clone, Default)]
struct Load(Arc<AtomicUsize>);

impl Load {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) -> Loaded {
        self.0.fetch_add(1, Ordering::Relaxed);
        Loaded(self.clone())
    }
}

struct Loaded(Load);

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` workers, of which the calling thread's runtime is one. They end with the last reference.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start(count: usize) -> io::Result<Arc<Self>> {
        let others = (1..count).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Arc::new(Self { here: Load::default(), others }))
    }

    /// Serves `socket` on the worker with the fewest connections.
    pub(super) fn spawn<F, Fut>(&self, socket: TcpStream, serve: F)
    where
        F: FnOnce(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let least = self.others.iter().min_by_key(|worker| worker.load.get());
        match least.filter(|worker| worker.load.get() < self.here.get()) {
            None => {
                let loaded = self.here.add();
                tokio::spawn(async move {
                    serve(socket).await;
                    drop(loaded);
                });
            }
            Some(worker) => {
                // Deregisters the socket from this thread's event queue; the other worker registers it with its own.
                let Ok(socket) = socket.into_std() else { return };
                let loaded = worker.load.add();
                let task = Box::new(move || -> Pin<Box<dyn Future<Output = ()> + Send>> {
                    Box::pin(async move {
                        if let Ok(socket) = TcpStream::from_std(socket) {
                            serve(socket).await;
                        }
                        drop(loaded);
                    })
                });
                // It cannot fail: a worker lives as long as its queue.
                let _ = worker.queue.send(task);
            }
        }
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let (queue, mut tasks) = mpsc::unbounded_channel::<Task>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            runtime.block_on(async move {
                while let Some(task) = tasks.recv().await {
                    tokio::spawn(task());
                }
            });
        })?;
        Ok(Self { queue, load: Load::default() })
    }
}
