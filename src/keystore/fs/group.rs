//! Shares one sync of the directory among all callers that wait for one.
//!
//! A sync takes as long for one new name as for a hundred. A caller that comes while a sync is running waits for the
//! next one. That begins when the running one has ended, and serves all callers that came meanwhile.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Identifies a directory: its device and inode number.
type Identity = (u64, u64);

/// Shares the syncs of the directory at a path.
#[derive(Debug, Default)]
pub(super) struct Syncs(Mutex<Option<(Identity, Arc<Group>)>>);

impl Syncs {
    /// Returns when a sync of this directory has succeeded that began after the call; `sync` makes one.
    pub(super) fn share<E>(&self, directory: Identity, sync: impl Fn() -> Result<(), E>) -> Result<(), E> {
        self.group(directory).share(sync)
    }

    fn group(&self, directory: Identity) -> Arc<Group> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((identity, group)) if *identity == directory => group.clone(),
            // Another directory was put in its place: its syncs say nothing about the old one's.
            _ => current.insert((directory, Arc::default())).1.clone(),
        }
    }
}

/// The syncs of one directory, numbered from 1 in the order in which they began.
#[derive(Debug, Default)]
struct Group {
    state: Mutex<State>,
    /// Callers wait here for syncs with even and with odd numbers, so that only those concerned are woken.
    ended: [Condvar; 2],
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    begun: u64,
    /// The last one that succeeded.
    succeeded: u64,
}

impl Group {
    fn share<E>(&self, sync: impl Fn() -> Result<(), E>) -> Result<(), E> {
        let mut state = self.lock();
        // One that has begun already may have missed what the caller has changed.
        let needed = state.begun + 1;
        while state.succeeded < needed {
            if state.running {
                let awaited = state.begun.max(needed);
                state = self.ended(awaited).wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            state.begun += 1;
            let number = state.begun;
            drop(state);
            let result = sync();
            state = self.lock();
            state.running = false;
            if result.is_ok() {
                state.succeeded = number;
            }
            // After a failure, each caller that shared the sync makes its own, and gets the kernel's error itself.
            self.ended(number).notify_all();
            // One of those who came meanwhile begins the next.
            self.ended(number + 1).notify_one();
            result?;
        }
        Ok(())
    }

    fn ended(&self, number: u64) -> &Condvar {
        &self.ended[usize::from(number % 2 == 1)]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn whoever_returns_has_been_synced_and_nobody_syncs_at_the_same_time() {
        let (syncs, made, synced, running) =
            (Syncs::default(), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let change = made.fetch_add(1, Ordering::SeqCst) + 1;
                        let sync = || {
                            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                            let changes = made.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            synced.fetch_max(changes, Ordering::SeqCst);
                            running.fetch_sub(1, Ordering::SeqCst);
                            Ok::<_, ()>(())
                        };
                        syncs.share((1, 1), sync).expect("no sync fails");
                        assert!(synced.load(Ordering::SeqCst) >= change);
                    }
                });
            }
        });
    }

    #[test]
    fn a_failure_is_told_to_everybody_it_concerns() {
        let group = Group::default();
        assert_eq!(group.share(|| Err("broken disk")), Err("broken disk"));
        assert_eq!(group.share(|| Err("still broken")), Err("still broken"));
        assert_eq!(group.share(|| Ok::<_, ()>(())), Ok(()));
    }
}
