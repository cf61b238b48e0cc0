//! Carries a run of this process to its verdict: wave by wave, under a lease that others can see.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::event::{Event, Head};
use super::gate::Stop;
use super::reconcile::{self, close_batch, conclude, verdict, write_verdict};
use super::start::{self, Started};
use super::task::Fleet;
use super::worker::{WorkError, Worker};
use super::{claim, control};
use crate::adapter::local::Local;
use crate::domain::layout;
use crate::domain::order::{Action, Order};
use crate::domain::run::{Active, Plan, RunRecord, Verdict};
use crate::domain::task::{Tally, TaskState};
use crate::port::{Dispatcher, Store, Written};

/// How often the lease is renewed: three tries before it lapses.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// How often a run that another process drives is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long after its `timeout` it must be known how a detached script of a canary has ended.
const KNOWN_WITHIN: Duration = Duration::from_mins(2);

/// How a run of this process ended.
#[derive(Debug, Clone)]
pub struct Driven {
    /// The verdict; none where scripts run on without us.
    pub verdict: Option<Verdict>,
    /// Why not every task was started, if so.
    pub stop: Option<Stop>,
}

/// Carries `started` to its verdict, telling what happens as it happens.
///
/// Where another process that may be alive drives the run, it is followed; where that one dies, this one goes on.
///
/// # Errors
/// [`WorkError`]; the run can be driven or settled by another process then.
pub async fn drive<S: Store, F: Fleet<S>>(worker: &Worker<S, F>, started: &Started) -> Result<Driven, WorkError> {
    let run = &started.run;
    worker.tell(Event::Started { run: Arc::clone(run), targets: started.plan.total() }).await;
    let lease = match &started.lease {
        Some(lease) => lease.clone(),
        None => match follow(worker, run).await? {
            Followed::TakenOver(lease) => lease,
            Followed::Finished(verdict) => return retell(worker, started, verdict).await,
            Followed::GivenUp => return Err(WorkError::Fenced),
        },
    };
    if let Some(verdict) = worker.runs.verdict(&run.run).await? {
        // The request came again after its end, or somebody settled the run while this process was stopped.
        conclude(&worker.runs, run, &verdict).await?;
        return retell(worker, started, verdict).await;
    }
    if started.lease.is_none() {
        take_up(worker, started).await?;
    }
    let keeping = tokio::spawn(keep_lease(worker.clone(), Arc::clone(run), lease.clone()));
    let asking = {
        let (worker, run) = (worker.clone(), Arc::clone(run));
        tokio::spawn(async move { control::obey(&worker.runs, &run.run, &worker.gate).await })
    };
    let driven = carry(worker, started, &lease).await;
    keeping.abort();
    asking.abort();
    let driven = driven?;
    if let Some(verdict) = driven.verdict.clone() {
        worker.tell(Event::Finished { run: Arc::clone(run), verdict }).await;
    }
    Ok(driven)
}

/// How following a run that another process drives has ended.
enum Followed {
    /// With its verdict.
    Finished(Verdict),
    /// Its driver is dead, and the lease is ours now.
    TakenOver(String),
    /// Somebody asked us to stop.
    GivenUp,
}

/// Follows a run that another process drives, until it is finished or that process is dead.
async fn follow<S: Store, F: Fleet<S>>(worker: &Worker<S, F>, run: &RunRecord) -> Result<Followed, WorkError> {
    loop {
        if let Some(verdict) = worker.runs.verdict(&run.run).await? {
            return Ok(Followed::Finished(verdict));
        }
        if let Some(lease) = take_lease(worker, run, None).await? {
            return Ok(Followed::TakenOver(lease));
        }
        tokio::select! {
            biased;
            () = worker.gate.closed() => return Ok(Followed::GivenUp),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Tells how a run that another process drove, and each of its tasks, has ended.
async fn retell<S: Store, F: Fleet<S>>(
    worker: &Worker<S, F>,
    started: &Started,
    verdict: Verdict,
) -> Result<Driven, WorkError> {
    let run = &started.run;
    for n in 0..batches(&started.plan) {
        let Some(targets) = worker.runs.targets(&run.run, n).await? else { continue };
        let Some((outcomes, _)) = worker.runs.outcomes(&run.run, n).await? else { continue };
        for target in targets.targets {
            let Some(record) = outcomes.tasks.get(&target.instance).cloned() else { continue };
            let (stdout, stderr) = (Head::default(), Head::default());
            worker.tell(Event::TaskFinished { target: Arc::new(target), record, stdout, stderr }).await;
        }
    }
    worker.tell(Event::Finished { run: Arc::clone(run), verdict: verdict.clone() }).await;
    Ok(Driven { verdict: Some(verdict), stop: None })
}

/// Goes on where another process has left off: what was asked meanwhile counts, and so do the errors that there were.
async fn take_up<S: Store, F: Fleet<S>>(worker: &Worker<S, F>, started: &Started) -> Result<(), WorkError> {
    let Tally { counts, .. } = reconcile::tally(&worker.runs, &started.run, &started.plan).await?;
    for _ in 0..counts.failures() {
        worker.gate.count_error();
    }
    Ok(control::heed(&worker.runs, &started.run.run, &worker.gate).await?)
}

async fn carry<S: Store, F: Fleet<S>>(
    worker: &Worker<S, F>,
    started: &Started,
    lease: &str,
) -> Result<Driven, WorkError> {
    let (run, plan) = (&started.run, &started.plan);
    let (dispatcher, taken) = Local::new();
    let expires_at = worker.clock.now() + longest(run, plan);
    let serving = tokio::spawn(serve(worker.clone(), taken, expires_at, started.lease.is_none()));
    let mut failed = None;
    for (number, (from, to)) in plan.waves.iter().copied().enumerate() {
        for batch in from..to {
            if worker.gate.stopped().is_some() {
                break;
            }
            let order = Order::new(Action::Run, &run.run, batch, expires_at);
            if dispatcher.dispatch(order).await.is_err() {
                break;
            }
        }
        let last = number.saturating_add(1) == plan.waves.len();
        if last {
            break;
        }
        match wave_succeeded(worker, run, from, to).await {
            Ok(false) if worker.gate.close(Stop::Canary) => {
                worker.tell(Event::Stopping { reason: Stop::Canary.reason() }).await;
            }
            Ok(_) => {}
            Err(error) => {
                // Whatever runs is ended and recorded before this process lets go of the run.
                worker.gate.end(Stop::Store(error.to_string()));
                failed = Some(error);
                break;
            }
        }
    }
    drop(dispatcher);
    if let Some(error) = serving.await.unwrap_or_default().or(failed) {
        return Err(error);
    }
    // What is not final is closed by whoever drives the run, which may be somebody else by now.
    if take_lease(worker, run, Some(lease)).await?.is_none() {
        return Err(WorkError::Fenced);
    }
    if worker.gate.is_leaving() {
        return leave(worker, started, lease).await;
    }
    let stop = worker.gate.stopped().cloned();
    let unstarted = stop.as_ref().map_or_else(|| "its worker ended before it started".to_owned(), Stop::reason);
    let state = if stop == Some(Stop::Cancelled) { TaskState::Cancelled } else { TaskState::Skipped };
    let mut tally = Tally::default();
    let now = worker.clock.now();
    for n in 0..batches(plan) {
        for (target, record, closed) in close_batch(&worker.runs, run, n, now, (state, &unstarted)).await? {
            tally.add(&record);
            if closed && record.state.is_final() {
                let (stdout, stderr) = (Head::default(), Head::default());
                worker.tell(Event::TaskFinished { target: Arc::new(target), record, stdout, stderr }).await;
            }
        }
    }
    if tally.counts.iter().any(|(state, _)| !state.is_final()) {
        release(worker, run, lease).await?;
        worker.tell(Event::Released { run: Arc::clone(run), counts: tally.counts }).await;
        return Ok(Driven { verdict: None, stop });
    }
    let verdict = verdict(plan, tally, stop.as_ref().and_then(Stop::of_run), worker.clock.now());
    let verdict = write_verdict(&worker.runs, run, verdict).await?;
    Ok(Driven { verdict: Some(verdict), stop })
}

/// Lets go of a run with everything in it as it is, so that another process can go on with it; of one that is over,
/// after its verdict.
async fn leave<S: Store, F: Fleet<S>>(
    worker: &Worker<S, F>,
    started: &Started,
    lease: &str,
) -> Result<Driven, WorkError> {
    let (run, plan) = (&started.run, &started.plan);
    let tally = reconcile::tally(&worker.runs, run, plan).await?;
    let verdict = if tally.counts.iter().all(|(state, _)| state.is_final()) {
        let ended = tally.ended_by(worker.clock.now());
        let verdict = verdict(plan, tally, None, ended);
        Some(write_verdict(&worker.runs, run, verdict).await?)
    } else {
        release(worker, run, lease).await?;
        worker.tell(Event::Released { run: Arc::clone(run), counts: tally.counts }).await;
        None
    };
    Ok(Driven { verdict, stop: Some(Stop::Leaving) })
}

/// Takes batches and runs them; the next is taken when every task of the one before has been let through the gate.
async fn serve<S: Store, F: Fleet<S>>(
    worker: Worker<S, F>,
    mut taken: mpsc::Receiver<Order>,
    expires_at: Timestamp,
    lapsed: bool,
) -> Option<WorkError> {
    let (mut working, mut first) = (JoinSet::new(), None);
    while let Some(order) = taken.recv().await {
        let admitted = Arc::new(Notify::new());
        let (worker, through) = (worker.clone(), NotifyAtEnd(Arc::clone(&admitted)));
        working.spawn(async move {
            let ended = worker.run_batch(&order.run, order.batch, expires_at, lapsed, &through.0).await;
            let failed = match ended {
                // Its task tells of it, and nobody else's is ended for that.
                Ok(()) | Err(WorkError::Panicked(_)) => None,
                Err(error @ (WorkError::Held(_) | WorkError::Fenced)) => {
                    worker.gate.end(Stop::Fenced);
                    Some(error)
                }
                Err(error) => {
                    worker.gate.end(Stop::Store(error.to_string()));
                    Some(error)
                }
            };
            worker.batch_ended.notify_one();
            failed
        });
        admitted.notified().await;
        while let Some(ended) = working.try_join_next() {
            first = first.or(ended.ok().flatten());
        }
    }
    while let Some(ended) = working.join_next().await {
        first = first.or(ended.ok().flatten());
    }
    first
}

/// Wakes whoever waits for a batch also where it ended before any task came to the gate, in whatever way.
struct NotifyAtEnd(Arc<Notify>);

impl Drop for NotifyAtEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Waits until every task of a wave is final, and tells whether none has failed. What runs detached is looked after until
/// then, or until its time must be over: what is not known to have succeeded has not.
async fn wave_succeeded<S: Store, F: Fleet<S>>(
    worker: &Worker<S, F>,
    run: &RunRecord,
    from: u32,
    to: u32,
) -> Result<bool, WorkError> {
    let detached = run.job.mode.is_detached();
    let looking = worker.access.look_after(&worker.runs, run, worker.clock);
    tokio::pin!(looking);
    let (mut awaited, mut deadline) = (HashSet::new(), None);
    loop {
        let (mut unstarted, mut failed, mut running) = (false, false, HashSet::new());
        for n in from..to {
            let targets = worker.runs.targets(&run.run, n).await?.map(|targets| targets.targets).unwrap_or_default();
            let outcomes = worker.runs.outcomes(&run.run, n).await?;
            let mut tasks = outcomes.map(|(outcomes, _)| outcomes.tasks).unwrap_or_default();
            for target in targets {
                match tasks.remove(&target.instance) {
                    Some(record) if record.state.is_final() => {
                        failed |= record.state != TaskState::Succeeded;
                        if awaited.remove(&target.instance) {
                            let (stdout, stderr) = (Head::default(), Head::default());
                            let target = Arc::new(target);
                            worker.tell(Event::TaskFinished { target, record, stdout, stderr }).await;
                        }
                    }
                    Some(record) if detached && record.state == TaskState::Running => {
                        running.insert(target.instance);
                    }
                    _ => unstarted = true,
                }
            }
        }
        if !unstarted {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + run.job.timeout.0 + KNOWN_WITHIN);
            if failed || running.is_empty() || Instant::now() >= deadline {
                return Ok(!failed && running.is_empty());
            }
            awaited = running;
        }
        if worker.gate.stopped().is_some() {
            return Ok(false);
        }
        tokio::select! {
            biased;
            () = &mut looking, if !awaited.is_empty() => {}
            () = worker.batch_ended.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Renews this process's lease on the run; where somebody else has taken it, ends what runs here.
async fn keep_lease<S: Store, F: Fleet<S>>(worker: Worker<S, F>, run: Arc<RunRecord>, lease: String) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        match take_lease(&worker, &run, Some(&lease)).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                if worker.gate.end(Stop::Fenced) {
                    worker.tell(Event::Stopping { reason: Stop::Fenced.reason() }).await;
                }
                return;
            }
            // A store that does not answer for a moment is not yet a lost lease.
            Err(error) => tracing::warn!(run = %run.run, %error, "the lease was not renewed"),
        }
    }
}

/// Extends the lease `ours`, or takes one whose holder is dead; `None` where somebody else who may be alive has it.
async fn take_lease<S: Store, F: Fleet<S>>(
    worker: &Worker<S, F>,
    run: &RunRecord,
    ours: Option<&str>,
) -> Result<Option<String>, WorkError> {
    let key = layout::active(&run.run);
    loop {
        let now = worker.clock.now();
        let mut lease = start::driver(now)?;
        let Some((Active { driver, wave }, version)) = worker.runs.active(&run.run).await? else {
            // Only a finished run is not active: there is nothing left to lose.
            return Ok(Some(ours.map_or(lease.nonce, str::to_owned)));
        };
        if let Some(held) = driver {
            if ours == Some(held.nonce.as_str()) {
                lease.nonce = held.nonce;
            } else if ours.is_some() || !claim::has_lapsed(&held, now) {
                // A lease that was taken from us is not taken back: its taker may have closed what ran here.
                return Ok(None);
            }
        }
        let nonce = lease.nonce.clone();
        if let Written::Done(_) = worker.runs.swap(&key, &version, &Active { driver: Some(lease), wave }).await? {
            return Ok(Some(nonce));
        }
        // Somebody was quicker; who, the next look tells.
    }
}

/// Gives up this process's lease on a run that goes on without it.
async fn release<S: Store, F: Fleet<S>>(worker: &Worker<S, F>, run: &RunRecord, ours: &str) -> Result<(), WorkError> {
    let key = layout::active(&run.run);
    while let Some((Active { driver: Some(held), wave }, version)) = worker.runs.active(&run.run).await? {
        if held.nonce != ours {
            break;
        }
        if let Written::Done(_) = worker.runs.swap(&key, &version, &Active { driver: None, wave }).await? {
            break;
        }
    }
    Ok(())
}

/// Longer than a batch of the run can take: every task one after the other, each with all its attempts.
fn longest(run: &RunRecord, plan: &Plan) -> Duration {
    let job = &run.job;
    let attempt = job.login.connect_timeout.0 * 3 + job.timeout.0 + Duration::from_mins(2);
    let pauses = Duration::from_hours(1);
    let task = (attempt + pauses).saturating_mul(job.retries.attempts.max(1));
    task.saturating_mul(plan.total().max(1)).min(Duration::from_hours(365 * 24))
}

fn batches(plan: &Plan) -> u32 {
    u32::try_from(plan.batches.len()).unwrap_or(u32::MAX)
}
