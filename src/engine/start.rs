//! Claims a run and plans it: from a request to something that workers can take on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::claim::LEASE;
use super::records::{MAX_TASKS, Runs, damaged};
use super::{clock, fire};
use crate::adapter::process;
use crate::domain::id::{InstanceId, RunId};
use crate::domain::job::Job;
use crate::domain::layout::{self, RunKeys};
use crate::domain::plan::{PLAN_WITHIN, plan};
use crate::domain::run::{Active, BatchTargets, Carrier, Claim, Plan, RunRecord, SCHEMA, Selected, Target};
use crate::domain::script::{ScriptRef, sha256_hex};
use crate::port::{Store, StoreError, Written};

/// How many batches are written at a time: with 25 ms a write that is 2,560 in a second, and S3 takes 3,500 of one prefix.
const AT_A_TIME: usize = 64;

/// How many targets are agreed on at a time: some hundred kilobytes.
const PART: usize = 1000;

/// What someone wants to be run.
#[derive(Debug, Clone)]
pub struct Request {
    /// The job, complete.
    pub job: Job,
    /// The bytes of the script.
    pub script: Vec<u8>,
    /// Where the script came from, for people.
    pub origin: String,
    /// Who asks.
    pub actor: String,
    /// Names this request: the same request delivered twice is one run.
    pub id: String,
    /// The run whose tasks this one runs again.
    pub retry_of: Option<RunId>,
    /// Where it is to run.
    pub targets: Vec<Target>,
}

/// A run that is claimed and planned.
#[derive(Debug, Clone)]
pub struct Started {
    /// The claim.
    pub run: Arc<RunRecord>,
    /// The plan.
    pub plan: Plan,
    /// The nonce of this process's lease on the run; none where another process had made the run active before.
    pub lease: Option<String>,
}

/// Why a request did not become a run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The request's id stands for another request.
    #[error("request id `{id}` is that of run `{run}`, which runs something else")]
    OtherRequest {
        /// The id.
        id: String,
        /// The run that it became.
        run: RunId,
    },
}

/// Claims and plans the run that `request` asks for; nothing is started yet.
///
/// The order of the writes is the order of recovery: the mark that the run is active, the script, the claim, the
/// targets, the batches, the plan. Whatever is cut off after the claim can be finished or settled from what is there.
///
/// # Errors
/// [`StartError`]
pub async fn start<S: Store>(runs: &Runs<S>, request: Request, now: Timestamp) -> Result<Started, StartError> {
    let sha256 = sha256_hex(&request.script);
    let script = ScriptRef { bytes: request.script.len() as u64, sha256, origin: request.origin };
    let (id, is_known) = run_id(runs, &request.job, &request.id, now).await?;
    let keys = RunKeys::new(&id);
    if is_known
        && runs.verdict(&id).await?.is_some()
        && let Some(found) = runs.run(&id).await?
    {
        // What is over is marked as active no more, and needs nothing that it was made of.
        if !is_same(&found, &request.job, &script) {
            return Err(StartError::OtherRequest { id: request.id, run: id });
        }
        let plan = runs.plan(&id).await?.ok_or_else(|| damaged(&keys.plan(), "it does not exist"))?;
        return Ok(Started { run: Arc::new(found), plan, lease: None });
    }
    let record = RunRecord {
        schema: SCHEMA.to_owned(),
        run: id.clone(),
        job: request.job,
        script,
        actor: request.actor,
        retry_of: request.retry_of,
        scheduled_for: None,
        started_at: now,
        plan_before: now + PLAN_WITHIN,
        carrier: Carrier::Caller,
        skipped: None,
        instance: None,
    };
    let driver = driver(now)?;
    let nonce = driver.nonce.clone();
    let active = runs.create(&layout::active(&id), &Active { driver: Some(driver), wave: None }).await?;
    let lease = matches!(active, Written::Done(_)).then_some(nonce);
    // After the mark: while that stands nobody takes the script for unused.
    runs.store().create(&layout::blob(&record.script.sha256), request.script).await?;
    if runs.create(&keys.run(), &record).await? == Written::Conflict {
        let found = runs.run(&id).await?.ok_or_else(|| damaged(&keys.run(), "it vanished"))?;
        if !is_same(&found, &record.job, &record.script) {
            return Err(StartError::OtherRequest { id: request.id, run: id });
        }
        fire::mind(runs, &found).await?;
        let plan = write_plan(runs, &found, request.targets).await?.plan;
        return Ok(Started { run: Arc::new(found), plan, lease });
    }
    fire::mind(runs, &record).await?;
    let plan = write_plan(runs, &record, request.targets).await?.plan;
    Ok(Started { run: Arc::new(record), plan, lease })
}

/// A run that is asked for and left to whoever carries it: to be planned and driven at ticks.
#[derive(Debug, Clone)]
pub struct Errand {
    /// The job, complete.
    pub job: Job,
    /// The bytes of the script.
    pub script: Vec<u8>,
    /// Who asks.
    pub actor: String,
    /// Names this request: the same request delivered twice is one run.
    pub id: String,
    /// The only instance that it is to run on, where that one's start is the reason.
    pub instance: Option<InstanceId>,
    /// The run whose tasks it runs again, and where they are; where it is none, its targets are selected when it is
    /// planned.
    pub retry: Option<(RunId, Vec<Target>)>,
    /// Who carries it.
    pub carrier: Carrier,
}

/// Claims the run that `errand` asks for. It is planned by the next tick, or by whoever advances it at once.
///
/// # Errors
/// [`StartError`]
pub async fn commission<S: Store>(runs: &Runs<S>, errand: Errand, now: Timestamp) -> Result<RunId, StartError> {
    let Errand { job, script, actor, id: request, instance, retry, carrier } = errand;
    let (retry_of, targets) = retry.unzip();
    let sha256 = sha256_hex(&script);
    let origin = job.source.origin();
    let script_ref = ScriptRef { bytes: script.len() as u64, sha256, origin };
    let (id, _) = run_id(runs, &job, &request, now).await?;
    let keys = RunKeys::new(&id);
    let as_before = |found: RunRecord, job: &Job, script: &ScriptRef| {
        let is_same = is_same(&found, job, script) && found.retry_of == retry_of;
        let (id, run) = (request.clone(), found.run);
        if is_same { Ok(run) } else { Err(StartError::OtherRequest { id, run }) }
    };
    if let Some(found) = runs.run(&id).await? {
        if runs.verdict(&id).await?.is_none() {
            fire::mind(runs, &found).await?;
        }
        return as_before(found, &job, &script_ref);
    }
    let record = RunRecord {
        schema: SCHEMA.to_owned(),
        run: id.clone(),
        job,
        script: script_ref,
        actor,
        retry_of: retry_of.clone(),
        scheduled_for: None,
        started_at: now,
        plan_before: now + PLAN_WITHIN,
        carrier,
        skipped: None,
        instance,
    };
    runs.create(&layout::active(&id), &Active { driver: None, wave: None }).await?;
    // After the mark: while that stands nobody takes the script for unused.
    runs.store().create(&layout::blob(&record.script.sha256), script).await?;
    if let Some(targets) = targets {
        // Before the claim: whoever plans the run finds them agreed on.
        agree(runs, &id, targets).await?;
    }
    if runs.create(&keys.run(), &record).await? == Written::Conflict {
        let found = runs.run(&id).await?.ok_or_else(|| damaged(&keys.run(), "it vanished"))?;
        fire::mind(runs, &found).await?;
        return as_before(found, &record.job, &record.script);
    }
    fire::mind(runs, &record).await?;
    Ok(id)
}

/// Whether `run` is what was asked for.
fn is_same(run: &RunRecord, job: &Job, script: &ScriptRef) -> bool {
    run.script.sha256 == script.sha256 && run.job == *job
}

/// A lease on a run for this process, from `now`.
///
/// # Errors
/// Where the system has no random numbers.
pub fn driver(now: Timestamp) -> Result<Claim, getrandom::Error> {
    Ok(Claim { nonce: clock::nonce()?, expires_at: now + LEASE, holder: process::this(), turn: 0 })
}

/// The id of the run that this request is, or has become when it was first delivered, and whether that was before.
async fn run_id<S: Store>(
    runs: &Runs<S>,
    job: &Job,
    request: &str,
    now: Timestamp,
) -> Result<(RunId, bool), StoreError> {
    let hash = sha256_hex(format!("{}\n{request}", job.name).as_bytes());
    let tail = hash.get(..8).unwrap_or(&hash);
    let id = RunId::on_demand(&job.name, now, tail);
    let key = layout::request(&hash);
    if let Written::Done(_) = runs.create(&key, &id).await? {
        return Ok((id, false));
    }
    let (first, _) = runs.read::<RunId>(&key).await?.ok_or_else(|| damaged(&key, "it vanished"))?;
    if first.job() != job.name {
        return Err(damaged(&key, format!("it names `{first}`, a run of another job")));
    }
    Ok((first, true))
}

/// A plan as it is in the store.
pub(super) struct Planned {
    /// What is planned.
    pub(super) plan: Plan,
    /// Whether this very call has written it: of any number of planners, that is true of one at most.
    pub(super) is_ours: bool,
}

/// Writes what the run's planners agree on, then the batches, then the plan.
///
/// The batches follow from the agreed targets and from nothing else: of any number of planners, cut off anywhere, all
/// write the same, in whatever order, and no target is in two.
pub(super) async fn write_plan<S: Store>(
    runs: &Runs<S>,
    run: &RunRecord,
    targets: Vec<Target>,
) -> Result<Planned, StoreError> {
    if let Some(plan) = runs.plan(&run.run).await? {
        return Ok(Planned { plan, is_ours: false });
    }
    let key = RunKeys::new(&run.run).plan();
    let (plan, batches) = plan(&run.job, agree(runs, &run.run, targets).await?, run.carrier);
    let writing = (0..).zip(batches).map(|(n, batch)| write_batch(runs, run, n, batch));
    stream::iter(writing).buffer_unordered(AT_A_TIME).try_collect::<()>().await?;
    if runs.create(&key, &plan).await? == Written::Conflict {
        let plan = runs.plan(&run.run).await?.ok_or_else(|| damaged(&key, "it vanished"))?;
        return Ok(Planned { plan, is_ours: false });
    }
    Ok(Planned { plan, is_ours: true })
}

/// The targets that all planners of `run` plan with: ours, where no other planner was quicker.
///
/// Each part is read back before the next is written, and the last one says that it is the last. Whatever another
/// planner has written counts: what it has left out by then comes after it, unless it was done.
async fn agree<S: Store>(runs: &Runs<S>, run: &RunId, targets: Vec<Target>) -> Result<Vec<Target>, StoreError> {
    let keys = RunKeys::new(run);
    let (mut agreed, mut rest) = (Vec::with_capacity(targets.len()), VecDeque::from(targets));
    for k in 0.. {
        let targets: Vec<Target> = rest.drain(..PART.min(rest.len())).collect();
        let mut part = Selected { targets, is_last: rest.is_empty() };
        let key = keys.selected(k);
        if runs.create(&key, &part).await? == Written::Conflict {
            let theirs = runs.read::<Selected>(&key).await?.ok_or_else(|| damaged(&key, "it vanished"))?.0;
            if theirs != part {
                let known: BTreeSet<&InstanceId> = theirs.targets.iter().map(|target| &target.instance).collect();
                let ours = part.targets.into_iter().chain(rest);
                rest = ours.filter(|target| !known.contains(&target.instance)).collect();
                part = theirs;
            }
        }
        agreed.extend(part.targets);
        if agreed.len() > MAX_TASKS as usize {
            return Err(damaged(&key, format!("a run has at most {MAX_TASKS} tasks")));
        }
        if part.is_last {
            break;
        }
    }
    Ok(agreed)
}

/// The targets that were agreed on for `run` before it was claimed.
pub(super) async fn agreed<S: Store>(runs: &Runs<S>, run: &RunId) -> Result<Vec<Target>, StoreError> {
    let keys = RunKeys::new(run);
    let mut agreed = Vec::new();
    for k in 0..MAX_TASKS {
        let key = keys.selected(k);
        let part = runs.read::<Selected>(&key).await?.ok_or_else(|| damaged(&key, "it does not exist"))?.0;
        agreed.extend(part.targets);
        if part.is_last {
            break;
        }
    }
    Ok(agreed)
}

/// Writes batch `n`, unless another planner has.
async fn write_batch<S: Store>(runs: &Runs<S>, run: &RunRecord, n: u32, batch: BatchTargets) -> Result<(), StoreError> {
    let key = RunKeys::new(&run.run).targets(n);
    if runs.create(&key, &batch).await? == Written::Conflict && runs.targets(&run.run, n).await? != Some(batch) {
        return Err(damaged(&key, "another planner has planned otherwise"));
    }
    Ok(())
}
