//! The task that rotates keys by their age.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock;
use crate::kms::{RotationRules, State};

/// How often it looks for keys that are too old. The least age is an hour.
const EVERY: Duration = Duration::from_secs(300);

/// The task. It looks when it starts, when its rules change, and then every few minutes.
pub(super) struct Rotation {
    rules: watch::Sender<RotationRules>,
    task: JoinHandle<()>,
}

impl Rotation {
    pub(super) fn start(state: Arc<State>, rules: RotationRules) -> Self {
        let (rules, changed) = watch::channel(rules);
        Self { rules, task: tokio::spawn(run(state, changed)) }
    }

    /// Applies other rules, from now on.
    pub(super) fn set(&self, rules: RotationRules) {
        self.rules.send_if_modified(|former| {
            let is_new = *former != rules;
            *former = rules;
            is_new
        });
    }

    /// Ends the task, before the writer ends. A key that it is rotating may get its version or not.
    pub(super) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

async fn run(state: Arc<State>, mut changed: watch::Receiver<RotationRules>) {
    loop {
        let rules = changed.borrow_and_update().clone();
        if !rules.is_empty() {
            state.rotate(&rules, clock::now()).await;
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            // The sender lives as long as the task.
            _ = changed.changed() => {}
        }
    }
}
