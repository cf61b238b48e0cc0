//! Settles what a dead process left behind: fences its batches, names what is lost and what never started, and writes
//! the verdict.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::claim::{self, Claimed};
use super::clock;
use super::records::{Runs, damaged};
use super::worker::WorkError;
use crate::adapter::process;
use crate::domain::layout::{self, RunKeys};
use crate::domain::run::{Claim, Outcomes, Plan, RunRecord, RunState, Target, Verdict};
use crate::domain::task::{Counts, TaskRecord, TaskState};
use crate::port::{Store, StoreError, Written};

/// How a run stands after a look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is finished.
    Finished(Verdict),
    /// Somebody who may be alive drives it.
    Driven,
    /// Nobody drives it; its scripts run on their hosts without us.
    Detached,
}

/// A task as it stands, and whether it was made final just now.
pub type Closed = (Target, TaskRecord, bool);

/// Looks at `run`; where nobody drives it any more, brings it to its verdict without starting anything.
///
/// # Errors
/// [`WorkError`]; whatever was settled until then stays settled, and a second look goes on from there.
pub async fn reconcile<S: Store>(runs: &Runs<S>, run: &RunRecord, now: Timestamp) -> Result<Settled, WorkError> {
    if let Some(verdict) = runs.verdict(&run.run).await? {
        runs.store().remove(&layout::active(&run.run)).await?;
        return Ok(Settled::Finished(verdict));
    }
    if let Some((active, _)) = runs.active(&run.run).await?
        && let Some(driver) = active.driver
        && !claim::is_dead(&driver, now)
    {
        return Ok(Settled::Driven);
    }
    let plan = sealed_plan(runs, run).await?;
    if plan.total() == 0 {
        let reason = Some("ended before it was planned; nothing was started".to_owned());
        let state = RunState::Failed;
        let verdict = Verdict { state, reason, counts: Counts::default(), finished_at: now };
        return Ok(Settled::Finished(write_verdict(runs, run, verdict).await?));
    }
    let mut tasks = Vec::new();
    for n in 0..u32::try_from(plan.batches.len()).unwrap_or(u32::MAX) {
        let unstarted = (TaskState::Skipped, "sshjob ended before it started");
        tasks.extend(close_batch(runs, run, n, now, unstarted).await?);
    }
    if tasks.iter().any(|(_, record, _)| !record.state.is_final()) {
        return Ok(Settled::Detached);
    }
    let reason = tasks.iter().any(|(_, _, closed)| *closed);
    let reason = reason.then(|| "the process that drove it ended before it was done".to_owned());
    let verdict = verdict(&plan, tasks.iter().map(|(_, record, _): &Closed| record.state), reason, now);
    Ok(Settled::Finished(write_verdict(runs, run, verdict).await?))
}

/// The plan of `run`; where there is none, an empty one is written, so that a planner who comes late finds that it is
/// too late.
async fn sealed_plan<S: Store>(runs: &Runs<S>, run: &RunRecord) -> Result<Plan, StoreError> {
    let empty = Plan { batches: Vec::new(), waves: Vec::new(), max_concurrency: 1, max_errors: None };
    let key = RunKeys::new(&run.run).plan();
    match runs.plan(&run.run).await? {
        Some(plan) => Ok(plan),
        None => match runs.create(&key, &empty).await? {
            Written::Done(_) => Ok(empty),
            Written::Conflict => runs.plan(&run.run).await?.ok_or_else(|| damaged(&key, "it vanished")),
        },
    }
}

/// Makes every task of batch `n` final: what runs is `lost`, unless it runs without us; what never started is in the
/// given state.
///
/// For whoever has the lease of the run, or found it lapsed. Takes the batch's claim first, so that a late worker
/// finds it taken and stops. Returns each task, and whether it was closed just now.
///
/// # Errors
/// [`WorkError`]
pub async fn close_batch<S: Store>(
    runs: &Runs<S>,
    run: &RunRecord,
    n: u32,
    now: Timestamp,
    (state, reason): (TaskState, &str),
) -> Result<Vec<Closed>, WorkError> {
    let keys = RunKeys::new(&run.run);
    let key = keys.targets(n);
    let targets = runs.targets(&run.run, n).await?.ok_or_else(|| damaged(&key, "it does not exist"))?.targets;
    let known = runs.outcomes(&run.run, n).await?;
    let detached = run.job.mode.is_detached();
    let is_settled = |record: &TaskRecord| record.state.is_final() || (detached && record.state == TaskState::Running);
    let is_final =
        |target: &Target, tasks: &BTreeMap<_, TaskRecord>| tasks.get(&target.instance).is_some_and(is_settled);
    if let Some((outcomes, _)) = &known
        && targets.iter().all(|target| is_final(target, &outcomes.tasks))
    {
        return Ok(with_records(targets, &outcomes.tasks, &[]));
    }
    let ours = Claim { nonce: clock::nonce()?, expires_at: now + claim::LEASE, holder: process::this() };
    if let Claimed::Held(by) = claim::claim(runs, &keys.claim(n), &ours, now, true).await? {
        return Err(WorkError::Held(by));
    }
    loop {
        let found = runs.outcomes(&run.run, n).await?;
        if let Some((outcomes, _)) = &found
            && outcomes.owner != ours.nonce
            && !claim::holds(runs, &keys.claim(n), &ours.nonce).await?
        {
            return Err(WorkError::Fenced);
        }
        let (mut tasks, version) = found.map_or_else(Default::default, |(o, version)| (o.tasks, Some(version)));
        let mut closed = Vec::new();
        for target in &targets {
            let record = tasks.remove(&target.instance).unwrap_or_else(TaskRecord::pending);
            let ended = match record.state {
                TaskState::Running if !detached => record.ended(TaskState::Lost, "worker", now),
                TaskState::Pending => record.unstarted(state, reason, now),
                _ => {
                    tasks.insert(target.instance.clone(), record);
                    continue;
                }
            };
            closed.push(target.instance.clone());
            tasks.insert(target.instance.clone(), ended);
        }
        let outcomes = Outcomes { owner: ours.nonce.clone(), tasks };
        let written = match version {
            Some(version) => runs.swap(&keys.outcomes(n), &version, &outcomes).await?,
            None => runs.create(&keys.outcomes(n), &outcomes).await?,
        };
        if let Written::Done(_) = written {
            return Ok(with_records(targets, &outcomes.tasks, &closed));
        }
    }
}

fn with_records(
    targets: Vec<Target>,
    tasks: &BTreeMap<crate::domain::id::InstanceId, TaskRecord>,
    closed: &[crate::domain::id::InstanceId],
) -> Vec<Closed> {
    let with = |target: Target| {
        let record = tasks.get(&target.instance).cloned().unwrap_or_else(TaskRecord::pending);
        let now = closed.contains(&target.instance);
        (target, record, now)
    };
    targets.into_iter().map(with).collect()
}

/// The verdict over all tasks of a planned run.
pub fn verdict(
    plan: &Plan,
    states: impl Iterator<Item = TaskState>,
    reason: Option<String>,
    now: Timestamp,
) -> Verdict {
    let counts: Counts = states.collect();
    debug_assert_eq!(counts.total(), plan.total(), "counts over a run add up to its number of targets");
    let state = if counts.total() > 0 && counts.of(TaskState::Succeeded) == counts.total() {
        RunState::Succeeded
    } else if counts.of(TaskState::Cancelled) > 0 {
        RunState::Cancelled
    } else {
        RunState::Failed
    };
    Verdict { state, reason: reason.filter(|_| state != RunState::Succeeded), counts, finished_at: now }
}

/// Writes the verdict, or returns the one that somebody else has written; then the run is no longer active.
///
/// # Errors
/// Where the store does not answer.
pub async fn write_verdict<S: Store>(runs: &Runs<S>, run: &RunRecord, verdict: Verdict) -> Result<Verdict, StoreError> {
    let key = RunKeys::new(&run.run).result();
    let verdict = match runs.create(&key, &verdict).await? {
        Written::Done(_) => verdict,
        Written::Conflict => runs.verdict(&run.run).await?.ok_or_else(|| damaged(&key, "it vanished"))?,
    };
    runs.store().remove(&layout::active(&run.run)).await?;
    Ok(verdict)
}
