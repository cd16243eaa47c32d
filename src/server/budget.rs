//! What all servers of a process have together: memory that clients make them hold, and room for connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::files;
use super::held::Accounts;

/// What the servers of a process share. So it makes no difference to the process how many there are.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    pub(super) held: Arc<Accounts>,
    /// Connections that servers may have already.
    connections: Arc<AtomicUsize>,
}

impl Budget {
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
