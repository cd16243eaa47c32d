//! What all servers of a process have together: memory that clients make them hold, and room for connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::files;
use super::held::Accounts;

/// What the servers of a process share. So it makes no difference to the process how many there are.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    pub(super) held: Arc<Accounts>,
    /// Connections that servers may have already.
    connections: Arc<AtomicUsize>,
    /// Whether the servers take connections.
    gate: Gate,
}

/// Closes all servers of a process to their clients, for a while: their addresses refuse connections, so that clients go
/// to another server.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    /// Opens or closes it. Connections that are there when it closes are cut off.
    pub fn set(&self, is_open: bool) {
        self.0.send_if_modified(|was| std::mem::replace(was, is_open) != is_open);
    }

    /// Waits until it is open, or closed.
    pub(super) async fn is(&self, open: bool) {
        let _ = self.0.subscribe().wait_for(|is_open| *is_open == open).await;
    }
}

impl Budget {
    /// What closes all servers that share this.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Takes room for connections; says for how many of `wanted` there is any.
    pub(super) fn take_connections(&self, wanted: usize) -> usize {
        let taken = files::for_connections(wanted, self.connections.load(Ordering::Relaxed));
        self.connections.fetch_add(taken, Ordering::Relaxed);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_server_has_taken_another_cannot_have() {
        let budget = Budget::default();
        let all = budget.take_connections(usize::MAX);
        // Where the system sets no limit, there is none.
        if all < usize::MAX {
            assert!(all > 100, "{all}");
            assert_eq!(budget.take_connections(100), 1, "at least one, so that it can say what is wrong");
        }
        assert_eq!(Budget::default().take_connections(100), 100);
    }
}
