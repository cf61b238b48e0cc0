//! The worker: claims a batch, and brings each of its tasks to its end.
//!
//! A batch that arrives twice, or again after a half-finished earlier try, runs nothing twice: what is final is left
//! alone, what had started under a dead worker is `lost`, and only the rest is run.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;

use super::claim::{self, Claimed};
use super::clock::{self, Clock};
use super::event::{Event, Head};
use super::gate::{Gate, Stop};
use super::ledger::{Ledger, LedgerError};
use super::records::{Runs, damaged};
use super::task::{Attempt, Fleet, Task};
use crate::domain::delivery::{Delivery, Program, Undeliverable};
use crate::domain::detached::{Detached, Terms};
use crate::domain::diagnostic::chain;
use crate::domain::id::RunId;
use crate::domain::job::{Job, Mode, Source};
use crate::domain::layout::{self, Key, RunKeys};
use crate::domain::run::{Claim, RunRecord, Target};
use crate::domain::script::sha256_hex;
use crate::domain::task::{TaskRecord, TaskState};
use crate::port::{Store, StoreError};

/// Secrets by the name of their variable; wiped when dropped, never shown.
pub type Secrets = BTreeMap<String, zeroize::Zeroizing<String>>;

/// What every task of this process shares.
#[derive(Clone)]
pub struct Worker<S, F> {
    /// Where runs live.
    pub runs: Runs<S>,
    /// Tells the time.
    pub clock: Clock,
    /// Hears what happens.
    pub events: mpsc::Sender<Event>,
    /// How targets are reached.
    pub access: F,
    /// What `secrets` of the job resolved to.
    pub secrets: Arc<Secrets>,
    /// Concurrency, errors and the end.
    pub gate: Gate,
    /// Woken whenever a batch has ended here.
    pub batch_ended: Arc<Notify>,
}

/// Why a batch was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// Somebody who may be alive works on it.
    #[error("another worker holds this batch")]
    Held(Claim),
    /// Another worker has taken it over.
    #[error("another worker has taken over this batch")]
    Fenced,
    /// The store does not answer, or what it says makes no sense.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// No random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// A fault of the program, in the words of its panic.
    #[error("a task panicked, which is a fault of sshjob: {0}")]
    Panicked(String),
}

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<LedgerError> for WorkError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Fenced => Self::Fenced,
            LedgerError::Store(error) => Self::Store(error),
        }
    }
}

/// What the tasks of one batch share.
pub struct Batch {
    /// The run that it is part of.
    pub run: RunRecord,
    /// Where that is in the store.
    pub keys: RunKeys,
    /// What every host is sent.
    pub shipment: Shipment,
    /// Where intents and outcomes go.
    pub ledger: Ledger,
}

impl<S: Store, F: Fleet<S>> Worker<S, F> {
    /// Runs the tasks of batch number `n` of a run that may be run, and returns when each is final.
    ///
    /// `expires_at` is when this worker's claim ends; `lapsed` tells that any earlier holder is known to be dead;
    /// `admitted` is woken when the last task has been let through the gate.
    ///
    /// # Errors
    /// [`WorkError`]; what it says of single tasks is in the store.
    pub async fn run_batch(
        &self,
        id: &RunId,
        n: u32,
        expires_at: Timestamp,
        lapsed: bool,
        admitted: &Notify,
    ) -> Result<(), WorkError> {
        let keys = RunKeys::new(id);
        let missing = |key: Key| damaged(&key, "it does not exist");
        let run = self.runs.run(id).await?.ok_or_else(|| missing(keys.run()))?;
        let targets = self.runs.targets(id, n).await?;
        let targets = targets.ok_or_else(|| missing(keys.targets(n)))?;
        let shipment = match self.shipment(&run).await {
            // What is gone or spoiled stays so: there is no use in trying again.
            Err(StoreError::Damaged { at, why }) => {
                let stop = Stop::Unequipped(format!("the run's script is not what was frozen: `{at}`: {why}"));
                let reason = stop.reason();
                if self.gate.close(stop) {
                    self.tell(Event::Stopping { reason }).await;
                }
                Shipment::Spoiled
            }
            shipment => shipment?,
        };
        let nonce = clock::nonce()?;
        let ours = Claim { nonce: nonce.clone(), expires_at, holder: crate::adapter::process::this(), turn: 0 };
        let claimed = claim::claim(&self.runs, &keys.claim(n), &ours, self.clock.now(), lapsed).await?;
        if let Claimed::Held(by) = claimed {
            return Err(WorkError::Held(by));
        }
        let (ledger, known) = Ledger::open(self.runs.clone(), id, n, targets.targets.len(), &nonce).await?;
        let batch = Arc::new(Batch { run, keys, shipment, ledger });
        let mut tasks = JoinSet::new();
        for target in targets.targets {
            let target = Arc::new(target);
            let record = known.get(&target.instance).cloned().unwrap_or_else(TaskRecord::pending);
            if record.state.is_final() {
                self.tell_finished(target, record, Head::default(), Head::default()).await;
                continue;
            }
            if record.state == TaskState::Running {
                if batch.run.job.mode.is_detached() {
                    // It runs without its earlier worker as it would without us.
                    self.tell_finished(target, record, Head::default(), Head::default()).await;
                    continue;
                }
                let lost = record.ended(TaskState::Lost, "worker", self.clock.now());
                tasks.spawn(self.clone().conclude(Arc::clone(&batch), target, lost));
                continue;
            }
            if let Some(permit) = self.gate.admit().await {
                let (worker, batch) = (self.clone(), Arc::clone(&batch));
                tasks.spawn(async move {
                    tokio::time::sleep(worker.gate.stagger(&target.instance)).await;
                    worker.run_guarded(n, batch, target, record, permit).await
                });
            } else if !self.gate.is_leaving() {
                let skipped = self.skipped(record);
                tasks.spawn(self.clone().conclude(Arc::clone(&batch), target, skipped));
            }
        }
        admitted.notify_one();
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(WorkError::Panicked(error.to_string())));
            // What keeps us from working on outweighs the fault of one task.
            if ended.is_err() && matches!(result, Ok(()) | Err(WorkError::Panicked(_))) {
                result = ended;
            }
        }
        if matches!(result, Ok(()) | Err(WorkError::Panicked(_))) {
            // Who comes to look after what runs detached, or to go on with what is left, need not wait for its end.
            let in_order = result.is_ok() && self.gate.stopped() != Some(&Stop::OutOfTime);
            claim::release(&self.runs, &batch.keys.claim(n), &nonce, self.clock.now(), in_order).await?;
        }
        result
    }

    /// What is sent to every host: the frozen bytes, whatever has become of the file since.
    async fn shipment(&self, run: &RunRecord) -> Result<Shipment, StoreError> {
        let key = layout::blob(&run.script.sha256);
        let object = self.runs.store().get(&key).await?.ok_or_else(|| damaged(&key, "it does not exist"))?;
        if sha256_hex(&object.bytes) != run.script.sha256 {
            return Err(damaged(&key, "its content does not have the hash in its name"));
        }
        pack(&run.job, &object.bytes.into()).map_err(|error| damaged(&key, error.to_string()))
    }

    fn skipped(&self, record: TaskRecord) -> TaskRecord {
        let reason = self.gate.stopped().map_or_else(String::new, Stop::reason);
        let state = match self.gate.stopped() {
            Some(Stop::Cancelled) => TaskState::Cancelled,
            _ => TaskState::Skipped,
        };
        record.unstarted(state, reason, self.clock.now())
    }

    /// Does as [`Worker::run_task`] does; where that panics, which is a fault of ours, its task comes to its end all the same:
    /// whoever came next would do no better.
    async fn run_guarded(
        self,
        n: u32,
        batch: Arc<Batch>,
        target: Arc<Target>,
        record: TaskRecord,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), WorkError> {
        let running = self.clone().run_task(Arc::clone(&batch), Arc::clone(&target), record, permit);
        let panic = match AssertUnwindSafe(running).catch_unwind().await {
            Ok(ended) => return Ok(ended?),
            Err(panic) => text_of(&*panic),
        };
        let run = &batch.run;
        tracing::error!(run = %run.run, instance = %target.instance, panic, "a task panicked");
        let known = self.runs.outcomes(&run.run, n).await?.and_then(|(mut it, _)| it.tasks.remove(&target.instance));
        let known = known.unwrap_or_else(TaskRecord::pending);
        let now = self.clock.now();
        let ended = match known.state {
            TaskState::Pending => known.unstarted(TaskState::Skipped, format!("a fault of sshjob: {panic}"), now),
            TaskState::Running if !run.job.mode.is_detached() => {
                known.ended(TaskState::Lost, format!("worker: a fault of sshjob: {panic}"), now)
            }
            // It has come to its end, or runs without us.
            _ => known,
        };
        self.finish(&batch, target, ended, <(Head, Head)>::default(), None).await?;
        Err(WorkError::Panicked(panic))
    }

    /// Makes attempts until one is final, and writes that.
    async fn run_task(
        self,
        batch: Arc<Batch>,
        target: Arc<Target>,
        mut record: TaskRecord,
        mut permit: OwnedSemaphorePermit,
    ) -> Result<(), LedgerError> {
        let job = &batch.run.job;
        loop {
            let attempt = record.attempt.saturating_add(1);
            let task = Task { worker: &self, batch: &batch, target: &target, attempt };
            let (Attempt { record: ended, stdout, stderr }, is_used) = match task.attempt(record.began_at()).await {
                Ok(made) => made,
                Err(error) => {
                    self.stop_for(&error).await;
                    return Err(error);
                }
            };
            if self.gate.is_leaving() && ended.state == TaskState::Cancelled && ended.started_at.is_none() {
                // It never started, and whoever takes over may start it: under this number, unless a host has seen it.
                let pending = if is_used { TaskRecord { attempt, ..record } } else { record };
                return self.keep(&batch, &target, pending).await.map(drop);
            }
            record = ended;
            let delay = retry_delay(job, &record);
            let goes_on = |_: &_| self.gate.stopped().is_none() || self.gate.is_leaving();
            let Some(delay) = delay.filter(goes_on) else {
                return self.finish(&batch, target, record, (stdout, stderr), Some(permit)).await;
            };
            self.tell(Event::TaskRetried { target: Arc::clone(&target), record: record.clone(), delay }).await;
            // Not final, and not running either: whoever takes over counts on from here.
            let kept = self.keep(&batch, &target, record.clone().waiting()).await?;
            if kept.state != TaskState::Pending {
                self.tell_finished(target, kept, stdout, stderr).await;
                return Ok(());
            }
            // A host that waits for its next attempt takes nobody's place.
            drop(permit);
            let admitted = tokio::select! {
                biased;
                () = self.gate.closed() => None,
                () = tokio::time::sleep(delay) => self.gate.admit().await,
            };
            let Some(again) = admitted else {
                if self.gate.is_leaving() {
                    return Ok(());
                }
                return self.finish(&batch, target, record, (stdout, stderr), None).await;
            };
            permit = again;
        }
    }

    async fn conclude(self, batch: Arc<Batch>, target: Arc<Target>, record: TaskRecord) -> Result<(), WorkError> {
        Ok(self.finish(&batch, target, record, <(Head, Head)>::default(), None).await?)
    }

    async fn finish(
        &self,
        batch: &Batch,
        target: Arc<Target>,
        record: TaskRecord,
        (stdout, stderr): (Head, Head),
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(), LedgerError> {
        // Skipped tasks are the consequence of errors, not errors that count; a detached one is on its way.
        let counts = record.state.is_final()
            && !matches!(record.state, TaskState::Succeeded | TaskState::Skipped | TaskState::Cancelled);
        if counts && let Some(stop) = self.gate.count_error() {
            self.tell(Event::Stopping { reason: stop.reason() }).await;
        }
        // Whoever comes next is let in: its intent is written after this, or not at all.
        drop(permit);
        let kept = self.keep(batch, &target, record).await?;
        self.tell_finished(target, kept, stdout, stderr).await;
        Ok(())
    }

    /// Writes what has become of a task; where that fails, nothing more is started.
    async fn keep(&self, batch: &Batch, target: &Target, record: TaskRecord) -> Result<TaskRecord, LedgerError> {
        match batch.ledger.record(&target.instance, record).await {
            Ok(kept) => Ok(kept),
            Err(error) => {
                self.stop_for(&error).await;
                Err(error)
            }
        }
    }

    async fn stop_for(&self, error: &LedgerError) {
        let stop = match error {
            LedgerError::Fenced => Stop::Fenced,
            LedgerError::Store(error) => Stop::Store(chain(error)),
        };
        let reason = stop.reason();
        if self.gate.end(stop) {
            self.tell(Event::Stopping { reason }).await;
        }
    }

    async fn tell_finished(&self, target: Arc<Target>, record: TaskRecord, stdout: Head, stderr: Head) {
        self.tell(Event::TaskFinished { target, record, stdout, stderr }).await;
    }

    pub(super) async fn tell(&self, event: Event) {
        // Nobody listening is no reason not to work.
        let _ = self.events.send(event).await;
    }
}

/// How much is told of a panic, in characters.
const MAX_PANIC: usize = 400;

/// What a panic said, on one line.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    said.unwrap_or("it said nothing").chars().filter(|c| !c.is_control()).take(MAX_PANIC).collect()
}

/// What every host is sent.
pub enum Shipment {
    /// A program that ends with the channel.
    Attached(Delivery),
    /// A program that outlives it.
    Detached(Detached),
    /// Nothing: what the store holds is not what was frozen. The gate is closed then.
    Spoiled,
}

/// Prepares what `job` runs for its hosts.
///
/// # Errors
/// Why it would not run as meant on any host.
pub fn pack(job: &Job, script: &Arc<[u8]>) -> Result<Shipment, Undeliverable> {
    let args: Vec<Vec<u8>> = job.args.iter().map(|arg| arg.clone().into_bytes()).collect();
    let words_and_args: Vec<Vec<u8>>;
    let program = match &job.source {
        Source::Script(_) | Source::Run(_) => Program::Script { bytes: script, args: &args },
        Source::Command(words) => {
            words_and_args = words.iter().map(|word| word.clone().into_bytes()).chain(args).collect();
            Program::Command(&words_and_args)
        }
    };
    match &job.mode {
        Mode::Attached => Delivery::new(program, &job.sudo, job.timeout.0).map(Shipment::Attached),
        Mode::Detached { unit, keep } => {
            let terms = Terms { timeout: job.timeout.0, max_output: job.max_output.0, keep: keep.0, unit: *unit };
            Detached::new(program, &job.sudo, &terms).map(Shipment::Detached)
        }
    }
}

/// How long to wait before another attempt; `None` where there is none to make.
fn retry_delay(job: &Job, ended: &TaskRecord) -> Option<std::time::Duration> {
    use crate::domain::job::RetryOn;
    let on = match ended.state {
        TaskState::Unreachable => RetryOn::Unreachable,
        TaskState::Failed => RetryOn::Failed,
        TaskState::TimedOut => RetryOn::TimedOut,
        _ => return None,
    };
    let retries = &job.retries;
    if ended.attempt >= retries.attempts || !retries.on.contains(&on) {
        return None;
    }
    // Doubled each time, so that a host that is coming up is not hammered; at most an hour.
    let doubled = retries.delay.0.saturating_mul(1 << (ended.attempt - 1).min(12));
    Some(doubled.min(std::time::Duration::from_hours(1)))
}
