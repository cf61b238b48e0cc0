//! Settles what a dead process left behind: fences its batches, names what is lost and what never started, and writes
//! the verdict.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::claim::{self, Claimed};
use super::clock;
use super::gate::Stop;
use super::records::{Runs, damaged};
use super::worker::WorkError;
use super::{history, notify};
use crate::adapter::process;
use crate::domain::firing::{Ended, JobState};
use crate::domain::layout::{self, RunKeys};
use crate::domain::notice::Notice;
use crate::domain::run::{Carrier, Claim, Outcomes, Plan, RunRecord, RunState, Sealed, Target, Verdict};
use crate::domain::task::{Tally, TaskRecord, TaskState};
use crate::port::{Store, StoreError, Written};

/// How many batches are looked at at a time: enough to hide the latency of a store.
const AT_A_TIME: usize = 64;

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
        conclude(runs, run, &verdict).await?;
        return Ok(Settled::Finished(verdict));
    }
    if run.carrier == Carrier::Functions && !is_final(runs, run).await? {
        return Ok(Settled::Driven);
    }
    if run.carrier == Carrier::Scheduler && !is_over(runs, run).await? {
        return Ok(Settled::Driven);
    }
    if let Some((active, _)) = runs.active(&run.run).await?
        && let Some(driver) = active.driver
        && !claim::has_lapsed(&driver, now)
    {
        return Ok(Settled::Driven);
    }
    let control = runs.control(&run.run).await?.map(|(control, _)| control).unwrap_or_default();
    let cancelled = control.cancelled.then(|| control.cancelled_by());
    let sealed = if let Some(by) = &cancelled {
        Sealed { state: RunState::Cancelled, reason: format!("{by} before it started") }
    } else {
        Sealed { state: RunState::Failed, reason: "ended before it was planned; nothing was started".to_owned() }
    };
    let plan = seal(runs, run, sealed).await?;
    if let Some(Sealed { state, reason }) = plan.sealed {
        let verdict = Verdict::unplanned(state, reason, now);
        return Ok(Settled::Finished(write_verdict(runs, run, verdict).await?));
    }
    let (state, unstarted) = match &cancelled {
        Some(_) => (TaskState::Cancelled, Stop::Cancelled.reason()),
        None => (TaskState::Skipped, "sshjob ended before it started".to_owned()),
    };
    let mut tasks = Vec::new();
    for n in 0..u32::try_from(plan.batches.len()).unwrap_or(u32::MAX) {
        tasks.extend(close_batch(runs, run, n, now, (state, &unstarted)).await?);
    }
    if tasks.iter().any(|(_, record, _)| !record.state.is_final()) {
        return Ok(Settled::Detached);
    }
    let is_cut = tasks.iter().any(|(_, _, closed)| *closed);
    // Of one that was cancelled its state says it all.
    let is_cut = is_cut && cancelled.is_none();
    let reason = is_cut.then(|| "the process that drove it ended before it was done".to_owned());
    let tally: Tally = tasks.iter().map(|(_, record, _): &Closed| record).collect();
    let ended = tally.ended_by(now);
    let verdict = verdict(&plan, tally, reason, ended);
    Ok(Settled::Finished(write_verdict(runs, run, verdict).await?))
}

/// The plan of `run`; where there is none, an empty one is written, so that a planner who comes late finds that it is
/// too late.
///
/// # Errors
/// Where the store does not answer.
pub async fn seal<S: Store>(runs: &Runs<S>, run: &RunRecord, sealed: Sealed) -> Result<Plan, StoreError> {
    let key = RunKeys::new(&run.run).plan();
    if let Some(plan) = runs.plan(&run.run).await? {
        return Ok(plan);
    }
    let empty = Plan::sealed(sealed);
    match runs.create(&key, &empty).await? {
        Written::Done(_) => Ok(empty),
        Written::Conflict => runs.plan(&run.run).await?.ok_or_else(|| damaged(&key, "it vanished")),
    }
}

/// Whether a run that schedulers carry can do without one: every task of it is final or runs detached, or someone has
/// asked for it to end.
async fn is_over<S: Store>(runs: &Runs<S>, run: &RunRecord) -> Result<bool, StoreError> {
    if runs.control(&run.run).await?.is_some_and(|(control, _)| control.cancelled) {
        return Ok(true);
    }
    let Some(plan) = runs.plan(&run.run).await? else { return Ok(false) };
    let Tally { counts, .. } = tally(runs, run, &plan).await?;
    Ok(counts.of(TaskState::Pending) == 0 && (counts.of(TaskState::Running) == 0 || run.job.mode.is_detached()))
}

/// Whether every task of a planned run is final: workers that nobody here can see may be at the others.
async fn is_final<S: Store>(runs: &Runs<S>, run: &RunRecord) -> Result<bool, StoreError> {
    let Some(plan) = runs.plan(&run.run).await? else { return Ok(false) };
    Ok(tally(runs, run, &plan).await?.counts.iter().all(|(state, _)| state.is_final()))
}

/// How the tasks of `run` stand.
///
/// # Errors
/// Where the store does not answer.
pub async fn tally<S: Store>(runs: &Runs<S>, run: &RunRecord, plan: &Plan) -> Result<Tally, StoreError> {
    let count = |(n, size): (u32, u32)| async move {
        let outcomes = runs.outcomes(&run.run, n).await?.map(|(outcomes, _)| outcomes.tasks).unwrap_or_default();
        let told = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
        let mut tally: Tally = outcomes.values().collect();
        tally.counts.add_many(TaskState::Pending, size.saturating_sub(told));
        Ok::<_, StoreError>(tally)
    };
    let counts = stream::iter((0..).zip(plan.batches.iter().copied()).map(count)).buffer_unordered(AT_A_TIME);
    let add = |mut total: Tally, tally: Tally| async move {
        total.merge(&tally);
        Ok(total)
    };
    counts.try_fold(Tally::default(), add).await
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
    let ours = Claim { nonce: clock::nonce()?, expires_at: now + claim::LEASE, holder: process::this(), turn: 0 };
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

/// The verdict over the tasks of a planned run, which stand as `tally` tells.
pub fn verdict(plan: &Plan, tally: Tally, reason: Option<String>, finished_at: Timestamp) -> Verdict {
    let Tally { counts, began: began_at, .. } = tally;
    debug_assert_eq!(counts.total(), plan.total(), "counts over a run add up to its number of targets");
    let state = if counts.total() > 0 && counts.of(TaskState::Succeeded) == counts.total() {
        RunState::Succeeded
    } else if counts.of(TaskState::Cancelled) > 0 {
        RunState::Cancelled
    } else {
        RunState::Failed
    };
    Verdict { state, reason: reason.filter(|_| state != RunState::Succeeded), counts, began_at, finished_at }
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
    conclude(runs, run, &verdict).await?;
    Ok(verdict)
}

/// Does what follows from a verdict: people are to be told, the job's state learns of it, and the run is no longer
/// active.
///
/// The mark goes last, so that whoever finds it does again what may not have been done.
///
/// # Errors
/// Where the store does not answer.
pub async fn conclude<S: Store>(runs: &Runs<S>, run: &RunRecord, verdict: &Verdict) -> Result<(), StoreError> {
    let key = layout::job_state(&run.job.name);
    let mut told = run.job.notify.is_none();
    loop {
        let (mut state, version) = match runs.read::<JobState>(&key).await? {
            Some((state, version)) => (state, Some(version)),
            None => Default::default(),
        };
        if state.knows_end_of(&run.run) {
            break;
        }
        if !told {
            tell_people(runs, run, verdict, &state).await?;
            told = true;
        }
        // Of a job that has never fired nobody keeps a history.
        let Some(version) = version else { break };
        let took_ms = u64::try_from(verdict.took().as_millis()).unwrap_or(u64::MAX);
        state.end(Ended { run: run.run.clone(), state: verdict.state, at: verdict.finished_at, took_ms });
        if let Written::Done(_) = runs.swap(&key, &version, &state).await? {
            break;
        }
    }
    runs.store().remove(&layout::active(&run.run)).await
}

/// Writes down what people are to be told of the end of a run, after what `state` says of those before it.
async fn tell_people<S: Store>(
    runs: &Runs<S>,
    run: &RunRecord,
    verdict: &Verdict,
    state: &JobState,
) -> Result<(), StoreError> {
    let tasks = history::load(runs, &run.run).await?.map(|view| view.tasks).unwrap_or_default();
    let tasks = tasks.iter().map(|task| (&task.target, &task.record));
    let notice = Notice::ended(run, verdict, tasks, state.last_verdict(verdict.finished_at), state.usual());
    notify::enqueue(runs, run, notice, verdict.finished_at).await
}
