//! The outcomes of one batch: written in groups, by one owner, in order.
//!
//! Every intent and every outcome is durable before [`Ledger::record`] returns. Durability costs a write per group, never
//! a write per host: while one write is under way, and for a moment after it began, what arrives is gathered for the next.
//! The first start waits for nothing, nor does the last end; an end, upon which nothing starts, waits a moment for others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::claim;
use super::records::Runs;
use crate::domain::id::{InstanceId, RunId};
use crate::domain::layout::{Key, RunKeys};
use crate::domain::run::Outcomes;
use crate::domain::task::{TaskRecord, TaskState};
use crate::port::{Store, StoreError, Version, Written};

/// Records that wait for the write under way; more make their tasks wait.
const QUEUE: usize = 256;

/// How long an intent waits after the group before it, and an end for company: a write of a directory costs 1 ms of CPU
/// time and its disk several, so that of hosts that start one after the other a few share it, and none is held up for long.
const COMPANY_WITHIN: Duration = Duration::from_millis(40);

/// A store that fails is tried again after these pauses, then the batch ends.
const RETRY_PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Why a record was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// Another worker has taken the batch over; nothing more may be started here.
    #[error("another worker has taken over this batch")]
    Fenced,
    /// The store does not answer.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

struct Entry {
    instance: InstanceId,
    record: TaskRecord,
    written: oneshot::Sender<Result<TaskRecord, LedgerError>>,
}

impl Entry {
    /// Whether a script waits for this to be written.
    fn is_intent(&self) -> bool {
        self.record.state == TaskState::Running && !self.record.confirmed
    }
}

/// Whether nothing more comes of a task here: it has ended, or was seen to run without us.
fn is_over(task: &TaskRecord) -> bool {
    task.state.is_final() || task.confirmed
}

/// The outcomes of one batch, owned by one claim.
#[derive(Clone)]
pub struct Ledger {
    entries: mpsc::Sender<Entry>,
}

impl Ledger {
    /// Takes ownership of the outcomes of batch `n`, of so many `hosts`, for the claim `nonce`, and returns what is known so
    /// far.
    ///
    /// From the moment this returns the next write of any earlier owner fails.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] where somebody else has taken the claim.
    pub async fn open<S: Store>(
        runs: Runs<S>,
        run: &RunId,
        n: u32,
        hosts: usize,
        nonce: &str,
    ) -> Result<(Self, BTreeMap<InstanceId, TaskRecord>), LedgerError> {
        let keys = RunKeys::new(run);
        let (key, claim) = (keys.outcomes(n), keys.claim(n));
        let mut outcomes = Outcomes { owner: nonce.to_owned(), tasks: BTreeMap::new() };
        let version = loop {
            if let Written::Done(version) = runs.create(&key, &outcomes).await? {
                // Where the run has ended and was pruned while this process slept, others have had its outcomes before.
                if runs.store().get(&keys.run()).await?.is_none() {
                    return Err(LedgerError::Fenced);
                }
                break version;
            }
            let Some((found, version)) = runs.read::<Outcomes>(&key).await? else { continue };
            // The owner need not be the one whose claim we took: that one may have died before it wrote here.
            if found.owner != nonce && !claim::holds(&runs, &claim, nonce).await? {
                return Err(LedgerError::Fenced);
            }
            outcomes.tasks = found.tasks;
            if let Written::Done(version) = runs.swap(&key, &version, &outcomes).await? {
                break version;
            }
            outcomes.tasks = BTreeMap::new();
        };
        let known = outcomes.tasks.clone();
        let (entries, queue) = mpsc::channel(QUEUE);
        tokio::spawn(Writer { runs, key, outcomes, version, hosts, next: Instant::now() }.run(queue));
        Ok((Self { entries }, known))
    }

    /// Writes what is known of a task; durable when it returns.
    ///
    /// Returns what is recorded then: where a collector knew better, that stands.
    ///
    /// # Errors
    /// [`LedgerError`]; after it whether the record was written is unknown, and nothing may be started.
    pub async fn record(&self, instance: &InstanceId, record: TaskRecord) -> Result<TaskRecord, LedgerError> {
        let (written, answer) = oneshot::channel();
        let entry = Entry { instance: instance.clone(), record, written };
        if self.entries.send(entry).await.is_err() {
            return Err(LedgerError::Fenced);
        }
        answer.await.unwrap_or(Err(LedgerError::Fenced))
    }
}

struct Writer<S> {
    runs: Runs<S>,
    key: Key,
    outcomes: Outcomes,
    version: Version,
    /// How many hosts the batch has.
    hosts: usize,
    /// Until then an intent waits for others.
    next: Instant,
}

impl<S: Store> Writer<S> {
    async fn run(mut self, mut queue: mpsc::Receiver<Entry>) {
        let mut group = Vec::new();
        // Ends when the batch drops its last handle.
        while queue.recv_many(&mut group, QUEUE).await > 0 {
            self.gather(&mut queue, &mut group).await;
            self.next = Instant::now() + COMPANY_WITHIN;
            for entry in &group {
                self.apply(entry);
            }
            let result = self.write().await;
            for entry in group.drain(..) {
                let kept = self.outcomes.tasks.get(&entry.instance).cloned().unwrap_or(entry.record);
                // A task that no longer waits has been ended; its record counts all the same.
                let _ = entry.written.send(result.clone().map(|()| kept));
            }
            if let Err(error) = result {
                // After a failure nothing may start, and whoever asks is told the same cause.
                while let Some(entry) = queue.recv().await {
                    let _ = entry.written.send(Err(error.clone()));
                }
            }
        }
    }

    /// Adds to a group what comes soon, unless nothing can come any more.
    async fn gather(&self, queue: &mut mpsc::Receiver<Entry>, group: &mut Vec<Entry>) {
        let over = self.outcomes.tasks.values().filter(|task| is_over(task)).count();
        let patient = Instant::now() + COMPANY_WITHIN;
        loop {
            let ends = group.iter().filter(|entry| is_over(&entry.record)).count();
            let until = if group.iter().any(Entry::is_intent) { self.next } else { patient };
            if group.len() >= QUEUE || over + ends >= self.hosts || until <= Instant::now() {
                return;
            }
            let room = QUEUE - group.len();
            match timeout_at(until, queue.recv_many(group, room)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    fn apply(&mut self, entry: &Entry) {
        match self.outcomes.tasks.get_mut(&entry.instance) {
            Some(known) if known.state.is_final() => {}
            // A collector has seen this very attempt run.
            Some(known) if known.confirmed && known.attempt == entry.record.attempt => {
                if entry.record.state == TaskState::Running {
                    known.learn(&entry.record);
                }
            }
            _ => {
                self.outcomes.tasks.insert(entry.instance.clone(), entry.record.clone());
            }
        }
    }

    /// Takes over what a collector has found out meanwhile of scripts that run without us.
    fn adopt(&mut self, found: Outcomes) {
        for (instance, record) in found.tasks {
            let Some(ours) = self.outcomes.tasks.get_mut(&instance) else { continue };
            if ours.attempt == record.attempt && (record.state.is_final() || record.confirmed && !ours.confirmed) {
                // Whatever was to be written, this was there before.
                *ours = record;
            } else {
                ours.learn(&record);
            }
        }
    }

    async fn write(&mut self) -> Result<(), LedgerError> {
        let mut pauses = RETRY_PAUSES.iter();
        loop {
            match self.swap().await {
                Err(LedgerError::Store(error)) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(LedgerError::Store(error)),
                },
                other => return other,
            }
        }
    }

    async fn swap(&mut self) -> Result<(), LedgerError> {
        loop {
            match self.runs.swap(&self.key, &self.version, &self.outcomes).await? {
                Written::Done(version) => {
                    self.version = version;
                    return Ok(());
                }
                Written::Conflict => {
                    // Either a write of ours got through without our hearing of it, or we are fenced.
                    let Some((found, version)) = self.runs.read::<Outcomes>(&self.key).await? else {
                        return Err(LedgerError::Fenced);
                    };
                    if found.owner != self.outcomes.owner {
                        return Err(LedgerError::Fenced);
                    }
                    self.adopt(found);
                    self.version = version;
                }
            }
        }
    }
}
