//! What a worker is asked to do with one batch of a run: the event that a worker function receives.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{JobName, RunId};

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Bring each of its tasks to its end, or to where it runs detached.
    Run,
    /// Ask its hosts where their detached tasks stand.
    Collect,
    /// End its detached tasks.
    Cancel,
}

/// One batch, and what a worker is to do with it.
///
/// It may arrive twice, late, or not at all: what has been done the store tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What is to be done.
    pub action: Action,
    /// The run.
    pub run: RunId,
    /// The job of the run.
    pub job: JobName,
    /// The number of the batch.
    pub batch: u32,
    /// After this instant nothing is to be done any more.
    pub not_after: Timestamp,
}

impl Order {
    /// An order to do `action` with batch number `batch` of `run`.
    pub fn new(action: Action, run: &RunId, batch: u32, not_after: Timestamp) -> Self {
        Self { action, run: run.clone(), job: run.job(), batch, not_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_written_as_the_event_of_a_worker_and_read_back() {
        let run = RunId::of_firing(&"hello".parse().unwrap(), "2026-11-23T09:30:00Z".parse().unwrap());
        let order = Order::new(Action::Collect, &run, 7, "2026-11-23T09:31:00Z".parse().unwrap());
        let text = r#"{"action":"collect","run":"hello-20261123T093000Z","job":"hello","batch":7,"not_after":"2026-11-23T09:31:00Z"}"#;
        assert_eq!(serde_json::to_string(&order).unwrap(), text);
        assert_eq!(serde_json::from_str::<Order>(text).unwrap(), order);
    }
}
