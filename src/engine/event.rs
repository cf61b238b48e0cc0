//! What happens in a run, told as it happens: the feed of progress, text and NDJSON.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::run::{RunRecord, Target, Verdict};
use crate::domain::task::{Counts, TaskRecord};

/// How much of each stream travels with an event and stands in documents; all of it is in the store.
pub const HEAD_BYTES: usize = 64 * 1024;

/// What the reason of a run that `max_errors` stopped begins with; the exit code depends on it.
pub const STOPPED_BY_ERRORS: &str = "max_errors";

/// The beginning of an output stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The first bytes, at most [`HEAD_BYTES`].
    pub bytes: Vec<u8>,
    /// Whether that is all that the store keeps of it.
    pub complete: bool,
}

/// What happens in a run.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run is claimed and planned; `targets` tasks are to come.
    Started {
        /// The claim.
        run: Arc<RunRecord>,
        /// How many tasks it has.
        targets: u32,
    },
    /// A task's started intent is durable and its script is on its way.
    TaskStarted {
        /// Where.
        target: Arc<Target>,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// An attempt ended in a way that the job tries again.
    TaskRetried {
        /// Where.
        target: Arc<Target>,
        /// How the attempt ended.
        record: TaskRecord,
        /// How long until the next.
        delay: Duration,
    },
    /// A task became final.
    TaskFinished {
        /// Where.
        target: Arc<Target>,
        /// How it ended.
        record: TaskRecord,
        /// The beginning of its standard output.
        stdout: Head,
        /// The beginning of its standard error.
        stderr: Head,
    },
    /// No more tasks are started, for this reason.
    Stopping {
        /// Why, as `max_errors 3 reached`.
        reason: String,
    },
    /// All that could be started is, and some of it runs on without us.
    Released {
        /// The claim.
        run: Arc<RunRecord>,
        /// How many tasks are in each state.
        counts: Counts,
    },
    /// The verdict is written.
    Finished {
        /// The claim.
        run: Arc<RunRecord>,
        /// The verdict.
        verdict: Verdict,
    },
}
