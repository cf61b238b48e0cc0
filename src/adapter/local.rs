//! Dispatch within this process: batches go to workers over a channel.

use tokio::sync::mpsc;

use crate::port::{BatchRef, DispatchError, Dispatcher};

/// Hands batches to the workers of this process.
#[derive(Debug, Clone)]
pub struct Local {
    batches: mpsc::Sender<BatchRef>,
}

impl Local {
    /// A dispatcher, and the end from which workers take batches.
    pub fn new() -> (Self, mpsc::Receiver<BatchRef>) {
        // One waits while one is being let through the gate: batches are claimed when their turn comes, not before.
        let (batches, taken) = mpsc::channel(1);
        (Self { batches }, taken)
    }
}

impl Dispatcher for Local {
    async fn dispatch(&self, batch: BatchRef) -> Result<(), DispatchError> {
        self.batches.send(batch).await.map_err(|mpsc::error::SendError(batch)| DispatchError {
            run: batch.run,
            batch: batch.batch,
            why: "the workers of this process have ended".to_owned(),
        })
    }
}
