//! What collectors note of the tasks of one batch: in groups, as a driver does, and beside it.
//!
//! While one write is under way, what others of this process have to note is gathered for the next: fifty hosts that
//! answer at once cost two writes, not fifty that get in each other's way.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::{Mutex, PoisonError};

use super::records::{Runs, damaged};
use super::visit::Fault;
use crate::domain::id::{InstanceId, RunId};
use crate::domain::layout::{Key, RunKeys};
use crate::domain::task::TaskRecord;
use crate::port::{Store, StoreError, Written};

/// How often a record may change under our hands before that is called a fault.
const TRIES: u32 = 20;

/// The records of some tasks.
type Records = BTreeMap<InstanceId, TaskRecord>;

/// The notes of one process on one batch.
pub(super) struct Notes<'a, S> {
    runs: &'a Runs<S>,
    run: &'a RunId,
    /// Which batch.
    pub(super) n: u32,
    /// What is to be written next.
    waiting: Mutex<Records>,
    /// What the store held after the last write, or why there was none; whoever holds it writes.
    written: tokio::sync::Mutex<Result<Records, String>>,
}

impl<'a, S: Store> Notes<'a, S> {
    /// Notes on batch `n` of `run`.
    pub(super) fn new(runs: &'a Runs<S>, run: &'a RunId, n: u32) -> Self {
        Self { runs, run, n, waiting: Mutex::default(), written: tokio::sync::Mutex::new(Ok(Records::new())) }
    }

    /// Writes what is known of a task, unless more is known already; returns what is in the store then.
    ///
    /// # Errors
    /// Why it was not written, for people.
    pub(super) async fn write(&self, instance: &InstanceId, record: TaskRecord) -> Result<TaskRecord, String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.clone(), record);
        let mut written = self.written.lock().await;
        let group = take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !group.is_empty() {
            *written = self.swap(&group).await.map_err(|error| Fault(error).to_string());
        }
        let tasks = written.as_ref().map_err(Clone::clone)?;
        tasks.get(instance).cloned().ok_or_else(|| damaged(&self.key(), "it no longer tells of it").to_string())
    }

    async fn swap(&self, group: &Records) -> Result<Records, StoreError> {
        let key = self.key();
        for _ in 0..TRIES {
            let read = self.runs.outcomes(self.run, self.n).await?;
            let (mut outcomes, version) = read.ok_or_else(|| damaged(&key, "it vanished"))?;
            let mut is_news = false;
            for (instance, record) in group {
                is_news |= outcomes.tasks.get_mut(instance).is_some_and(|known| known.learn(record));
            }
            if !is_news {
                return Ok(outcomes.tasks);
            }
            if let Written::Done(_) = self.runs.swap(&key, &version, &outcomes).await? {
                return Ok(outcomes.tasks);
            }
        }
        Err(damaged(&key, format!("it was changed {TRIES} times while it was being written")))
    }

    fn key(&self) -> Key {
        RunKeys::new(self.run).outcomes(self.n)
    }
}
