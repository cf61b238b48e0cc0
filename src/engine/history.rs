//! What is known of runs: which there are, and how each of their tasks stands.

use std::cmp::Reverse;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use crate::domain::document::RunSummary;
use crate::domain::id::{JobName, RunId};
use crate::domain::layout::{Key, RunKeys, Stream};
use crate::domain::quantity::ByteSize;
use crate::domain::run::{Again, Control, Plan, RunRecord, RunState, Target, Verdict};
use crate::domain::task::{Counts, TaskRecord, TaskState};
use crate::port::{Store, StoreError};

use super::reconcile::reconcile;
use super::records::{Runs, damaged};
use super::worker::WorkError;

/// How many names are asked for at a time; what S3 gives at most.
const PAGE: usize = 1000;

/// How many records are read at a time: enough to hide a store's latency, few enough to be polite to a disk.
const READS: usize = 16;

/// How many candidates an ambiguous name is told with.
const CANDIDATES: usize = 10;

/// A task as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Where.
    pub target: Target,
    /// What is known of it; pending where nothing is.
    pub record: TaskRecord,
}

/// A run as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunView {
    /// The claim.
    pub record: RunRecord,
    /// The plan, once there is one.
    pub plan: Option<Plan>,
    /// What someone asked of the run.
    pub control: Control,
    /// The verdict, once there is one.
    pub verdict: Option<Verdict>,
    /// The tasks, in the order of the plan.
    pub tasks: Vec<Task>,
    /// Tasks that are planned, but not told yet.
    pub untold: u32,
}

impl RunView {
    /// Where the run stands.
    pub fn state(&self) -> RunState {
        match (&self.verdict, &self.plan) {
            (Some(verdict), _) => verdict.state,
            (None, _) if self.control.paused && !self.control.cancelled => RunState::Paused,
            (None, None) => RunState::Planning,
            (None, Some(_)) => RunState::Running,
        }
    }

    /// Why it stands there, where the counts do not say it.
    pub fn reason(&self) -> Option<String> {
        match &self.verdict {
            Some(verdict) => verdict.reason.clone(),
            None if self.control.cancelled => Some(format!("cancel asked by {}", self.control.actor)),
            None if self.control.paused => Some(format!("paused by {}", self.control.actor)),
            None => None,
        }
    }

    /// How many tasks are in each state; they add up to the number of targets.
    pub fn counts(&self) -> Counts {
        let told = self.tasks.iter().map(|task| task.record.state);
        told.chain((0..self.untold).map(|_| TaskState::Pending)).collect()
    }

    /// Where a retry of the tasks that `again` means goes.
    pub fn targets(&self, again: Again) -> Vec<Target> {
        let meant = self.tasks.iter().filter(|task| again.includes(task.record.state));
        meant.map(|task| task.target.clone()).collect()
    }

    /// The run without its tasks, as documents tell it.
    pub fn summary(&self) -> RunSummary {
        let finished_at = self.verdict.as_ref().map(|verdict| verdict.finished_at);
        RunSummary::new(&self.record, self.state(), self.reason(), finished_at, self.counts())
    }
}

/// How many bytes of a stream of the last attempt the store should hold; `None` where nobody can know.
pub fn kept(record: &TaskRecord, stream: Stream, max_output: ByteSize) -> Option<u64> {
    let (bytes, unstored) = match stream {
        Stream::Out => (record.stdout_bytes, record.stdout_unstored),
        Stream::Err => (record.stderr_bytes, record.stderr_unstored),
    };
    let kept = bytes.saturating_sub(unstored.unwrap_or_default());
    let known = record.state.is_final() && record.state != TaskState::Lost && kept <= max_output.0;
    known.then_some(kept)
}

/// Brings the records of an unfinished run up to date where whoever drove it is gone.
///
/// # Errors
/// Where the store cannot be read or written; the records are as true as they were before.
pub async fn refresh<S: Store>(runs: &Runs<S>, run: &RunId, now: Timestamp) -> Result<(), WorkError> {
    let Some(record) = runs.run(run).await? else { return Ok(()) };
    // One that died between its last two writes has left a finished run marked as active.
    if runs.verdict(run).await?.is_some() && runs.active(run).await?.is_none() {
        return Ok(());
    }
    match reconcile(runs, &record, now).await {
        // Somebody else is at it, which is as good.
        Err(WorkError::Held(_) | WorkError::Fenced) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The ids of all runs, or of all runs of `job`, newest first; what is half removed is among them.
///
/// # Errors
/// Where the store cannot be read.
pub async fn ids<S: Store>(runs: &Runs<S>, job: Option<&JobName>) -> Result<Vec<RunId>, StoreError> {
    let prefix = job.map_or_else(|| "runs/".to_owned(), |job| format!("runs/{job}/"));
    let mut ids: Vec<RunId> = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = runs.store().list(&prefix, after.as_ref(), PAGE).await?;
        let Some(last) = page.last().cloned() else { break };
        for key in &page {
            if let Some(run) = run_of(key).filter(|run| ids.last() != Some(run)) {
                ids.push(run);
            }
        }
        // A run may hold thousands of pieces of output: `z` comes after everything that lies in a run.
        let skip = run_of(&last).and_then(|run| Key::parse(&format!("{}z", RunKeys::new(&run).prefix())));
        after = skip.max(Some(last));
    }
    ids.sort_by(|a, b| (Reverse(a.time()), Reverse(a)).cmp(&(Reverse(b.time()), Reverse(b))));
    ids.dedup();
    Ok(ids)
}

/// The run in whose folder `key` lies.
fn run_of(key: &Key) -> Option<RunId> {
    let mut segments = key.as_str().split('/').skip(1);
    let (job, run) = (segments.next()?, segments.next()?.parse::<RunId>().ok()?);
    (segments.next().is_some() && run.job_name() == job).then_some(run)
}

/// A run in a list: what is known of it, or why nothing is.
#[derive(Debug)]
pub struct Listed {
    /// The run.
    pub run: RunId,
    /// How it stands.
    pub summary: Result<RunSummary, StoreError>,
}

/// Lists the runs of `job`, or of all jobs, that started at `since` or later; the newest first, at most `limit`.
///
/// A run whose records are damaged is in the list, with what is wrong.
///
/// # Errors
/// Where the store cannot be read.
pub async fn list<S: Store>(
    runs: &Runs<S>,
    job: Option<&JobName>,
    since: Option<Timestamp>,
    limit: usize,
) -> Result<Vec<Listed>, StoreError> {
    let since = since.map(|at| at.strftime("%Y%m%dT%H%M%SZ").to_string()).unwrap_or_default();
    let ids = ids(runs, job).await?.into_iter().take_while(|run| run.time() >= since.as_str());
    let listed = stream::iter(ids).map(|run| summarize(runs, run)).buffered(READS);
    let listed = listed.try_filter_map(|listed| std::future::ready(Ok(listed)));
    // An id tells the second alone: those of one second are read to the last of them, and then put in order.
    let (mut count, mut second) = (0, String::new());
    let enough = listed.try_take_while(|listed: &Listed| {
        let wanted = count < limit || second == listed.run.time();
        (count, second) = (count + 1, listed.run.time().to_owned());
        std::future::ready(Ok(wanted))
    });
    let mut listed: Vec<Listed> = enough.try_collect().await?;
    let started = |listed: &Listed| listed.summary.as_ref().ok().map(|summary| summary.started_at);
    for second in listed.chunk_by_mut(|one, other| one.run.time() == other.run.time()) {
        second.sort_by_key(|listed| Reverse(started(listed)));
    }
    listed.truncate(limit);
    Ok(listed)
}

/// How `run` stands; `None` where it is no run.
async fn summarize<S: Store>(runs: &Runs<S>, run: RunId) -> Result<Option<Listed>, StoreError> {
    let summary = match summary(runs, &run).await {
        Ok(Some(summary)) => Ok(summary),
        Ok(None) => return Ok(None),
        Err(error @ StoreError::Unavailable { .. }) => return Err(error),
        Err(error @ StoreError::Damaged { .. }) => Err(error),
    };
    Ok(Some(Listed { run, summary }))
}

/// The run without its tasks; those of a finished run need not be read. `None` where there is no such run.
///
/// # Errors
/// [`StoreError::Damaged`] where a record is not what it should be.
pub async fn summary<S: Store>(runs: &Runs<S>, run: &RunId) -> Result<Option<RunSummary>, StoreError> {
    let Some(record) = runs.run(run).await? else { return Ok(None) };
    match runs.verdict(run).await? {
        Some(verdict) => {
            let Verdict { state, reason, counts, finished_at, .. } = verdict;
            Ok(Some(RunSummary::new(&record, state, reason, Some(finished_at), counts)))
        }
        None => Ok(load(runs, run).await?.map(|view| view.summary())),
    }
}

/// Loads a run with all of its tasks; `None` where there is no such run.
///
/// # Errors
/// [`StoreError::Damaged`] where a record is not what it should be.
pub async fn load<S: Store>(runs: &Runs<S>, run: &RunId) -> Result<Option<RunView>, StoreError> {
    let Some(record) = runs.run(run).await? else { return Ok(None) };
    // The verdict first: it is written last, so what is read after it is final where it is there.
    let verdict = runs.verdict(run).await?;
    let control = runs.control(run).await?.map(|(control, _)| control).unwrap_or_default();
    let plan = runs.plan(run).await?;
    let sizes: Vec<u32> = plan.iter().flat_map(|plan| plan.batches.iter().copied()).collect();
    let batches = stream::iter((0..).zip(sizes)).map(|(n, size)| batch(runs, run, n, size)).buffered(READS);
    let batches: Vec<(Vec<Task>, u32)> = batches.try_collect().await?;
    let untold = batches.iter().map(|(_, untold)| untold).sum();
    let tasks = batches.into_iter().flat_map(|(tasks, _)| tasks).collect();
    Ok(Some(RunView { record, plan, control, verdict, tasks, untold }))
}

/// The tasks of batch `n`, which are `size`, and how many of them are not told yet.
async fn batch<S: Store>(runs: &Runs<S>, run: &RunId, n: u32, size: u32) -> Result<(Vec<Task>, u32), StoreError> {
    let Some(batch) = runs.targets(run, n).await? else { return Ok((Vec::new(), size)) };
    if batch.targets.len() != size as usize {
        let why = format!("it has {} targets; the plan says {size}", batch.targets.len());
        return Err(damaged(&RunKeys::new(run).targets(n), why));
    }
    let mut known = runs.outcomes(run, n).await?.map(|(outcomes, _)| outcomes.tasks).unwrap_or_default();
    let task = |target: Target| {
        let record = known.remove(&target.instance).unwrap_or_else(TaskRecord::pending);
        Task { target, record }
    };
    Ok((batch.targets.into_iter().map(task).collect(), 0))
}

/// Why a name is not one run.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// There are no runs at all.
    #[error("there are no runs yet")]
    None,
    /// No run is called so.
    #[error("there is no run `{name}`")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The run with the most similar id.
        nearest: Option<RunId>,
    },
    /// Several runs begin so.
    #[error("`{name}` is the beginning of several run ids")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The newest of them.
        candidates: Vec<RunId>,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finds the run that is called `name`: by its id, by a beginning of it that no other run has, or as `last`.
///
/// # Errors
/// [`Unresolved`] where it is not exactly one.
pub async fn resolve<S: Store>(runs: &Runs<S>, name: &str) -> Result<RunId, Unresolved> {
    if let Ok(run) = name.parse::<RunId>()
        && exists(runs, &run).await?
    {
        return Ok(run);
    }
    let ids = ids(runs, None).await?;
    if name == "last" {
        return last(runs, &ids).await?.ok_or(Unresolved::None);
    }
    let mut matching = Vec::new();
    for run in ids.iter().filter(|run| !name.is_empty() && run.as_str().starts_with(name)) {
        if exists(runs, run).await? {
            matching.push(run);
            if matching.len() == CANDIDATES {
                break;
            }
        }
    }
    match matching.as_slice() {
        [run] => Ok((*run).clone()),
        [] if ids.is_empty() => Err(Unresolved::None),
        [] => {
            let similar = |run: &RunId| strsim::jaro_winkler(run.as_str(), name);
            let nearest = ids.iter().max_by(|a, b| similar(a).total_cmp(&similar(b))).cloned();
            Err(Unresolved::Unknown { name: name.to_owned(), nearest })
        }
        several => {
            let candidates = several.iter().map(|run| (*run).clone()).collect();
            Err(Unresolved::Ambiguous { name: name.to_owned(), candidates })
        }
    }
}

/// The run of `ids`, which are sorted newest first, that was started last.
async fn last<S: Store>(runs: &Runs<S>, ids: &[RunId]) -> Result<Option<RunId>, StoreError> {
    let mut last: Option<(Timestamp, &RunId)> = None;
    for run in ids {
        // An id tells the second; which of several in one second was the last, only their claims do.
        if last.is_some_and(|(_, last)| last.time() != run.time()) {
            break;
        }
        if let Some(record) = runs.run(run).await?
            && last.is_none_or(|(at, _)| at < record.started_at)
        {
            last = Some((record.started_at, run));
        }
    }
    Ok(last.map(|(_, run)| run.clone()))
}

/// Whether the run was claimed and not removed.
async fn exists<S: Store>(runs: &Runs<S>, run: &RunId) -> Result<bool, StoreError> {
    Ok(runs.store().get(&RunKeys::new(run).run()).await?.is_some())
}
