//! Runs that worker functions carry: which orders they get, and the worker's side of an order.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::Notify;

use super::control;
use super::gate::Stop;
use super::reconcile::{close_batch, verdict, write_verdict};
use super::records::Runs;
use super::task::Fleet;
use super::worker::{WorkError, Worker};
use crate::domain::diagnostic::chain;
use crate::domain::fanout::{Batch, Decision, Halt, Move, ORDER_COUNTS_FOR, Standing};
use crate::domain::id::RunId;
use crate::domain::layout::{self, RunKeys};
use crate::domain::order::Order;
use crate::domain::run::{Active, Plan, RunRecord, Trouble, Verdict, Wave};
use crate::domain::task::{Tally, TaskState};
use crate::port::{DispatchError, Dispatcher, Store, StoreError};

/// How many batches are looked at, or sent, at a time: enough to hide the latency of a store and of functions.
const AT_A_TIME: usize = 64;

/// What ending a script on its host may take, TERM to KILL, and writing down how it ended.
const END_WITHIN: Duration = Duration::from_secs(20);

/// How much is noted of a trouble, in characters.
const MAX_TROUBLE: usize = 600;

/// What came of a look at a run that worker functions carry.
#[derive(Debug, Default)]
pub struct FannedOut {
    /// How many orders were sent.
    pub sent: usize,
    /// How many tasks were closed that never started, or whose worker has died.
    pub closed: usize,
    /// The verdict, where every task is final.
    pub verdict: Option<Verdict>,
    /// What could not be done; the next look does it.
    pub troubles: Vec<String>,
}

/// Takes a run as far as it goes now: opens its next wave, sends orders for its batches, closes what comes to nothing,
/// and writes its verdict.
///
/// # Errors
/// [`WorkError`] where the store does not answer; what was sent or closed until then stays so.
pub async fn fan_out<S: Store, D: Dispatcher>(
    runs: &Runs<S>,
    dispatcher: &D,
    run: &RunRecord,
    plan: &Plan,
    now: Timestamp,
) -> Result<FannedOut, WorkError> {
    let control = runs.control(&run.run).await?.map(|(control, _)| control).unwrap_or_default();
    let wave = runs.active(&run.run).await?.and_then(|(active, _)| active.wave);
    let batches = look(runs, run, plan).await?;
    let standing = Standing {
        plan,
        canary: plan.waves.len() > 1 && run.job.rollout.canary.of(plan.total()) > 0,
        detached: run.job.mode.is_detached(),
        control: &control,
        wave,
        deadline: run.job.schedule.deadline.0,
        batches: &batches,
    };
    let Decision { wave, moves, is_over, halt } = standing.decide(now);
    if let Some(wave) = wave {
        open(runs, run, wave).await?;
    }
    // What nobody came for tells what kept them.
    let gives_up = moves.iter().any(|step| matches!(step, Move::Close(_, Halt::Unclaimed | Halt::Dying)));
    let trouble = if gives_up { runs.trouble(&run.run).await? } else { None };
    let trouble = trouble.as_ref().map(|(trouble, _)| trouble.why.as_str());
    let mut done = FannedOut::default();
    let mut tallies: Vec<Tally> = batches.into_iter().map(|batch| batch.tally).collect();
    let carry_out = |step: Move| async move {
        match step {
            Move::Send(action, n) => {
                let order = Order::new(action, &run.run, n, now + ORDER_COUNTS_FOR);
                (
                    n,
                    dispatcher
                        .dispatch(order)
                        .await
                        .map(|()| None)
                        .map_err(|DispatchError { why, .. }| Failed::Told(why)),
                )
            }
            Move::Close(n, halt) => {
                (n, close(runs, run, n, (halt, trouble), now).await.map(Some).map_err(Failed::Work))
            }
        }
    };
    let mut steps = stream::iter(moves.into_iter().map(carry_out)).buffer_unordered(AT_A_TIME);
    while let Some((n, done_to)) = steps.next().await {
        match done_to {
            Ok(None) => done.sent += 1,
            Ok(Some((closed, after))) => {
                done.closed += closed;
                if let Some(tally) = tallies.get_mut(n as usize) {
                    *tally = after;
                }
            }
            // A worker came for it after all.
            Err(Failed::Work(WorkError::Held(_) | WorkError::Fenced)) => {}
            Err(Failed::Work(error)) => return Err(error),
            Err(Failed::Told(why)) => done.troubles.push(format!("batch {n}: {why}")),
        }
    }
    drop(steps);
    if let Some(why) = done.troubles.first() {
        note(runs, &run.run, why, now).await;
    }
    let mut total = Tally::default();
    for tally in &tallies {
        total.merge(tally);
    }
    if is_over || total.counts.iter().all(|(state, _)| state.is_final()) {
        let reason = halt.filter(|halt| *halt != Halt::Cancelled).map(|halt| reason_of(halt, None));
        let ended = total.ended_by(now);
        done.verdict = Some(write_verdict(runs, run, verdict(plan, total, reason, ended)).await?);
    }
    Ok(done)
}

/// Why a step was not done.
enum Failed {
    /// The store does not answer, or somebody else is at it.
    Work(WorkError),
    /// No worker was sent for, for this reason.
    Told(String),
}

/// What the store tells of the batches of `run`.
async fn look<S: Store>(runs: &Runs<S>, run: &RunRecord, plan: &Plan) -> Result<Vec<Batch>, StoreError> {
    let look_at = |(n, size): (u32, u32)| async move {
        let (outcomes, claim) = tokio::join!(runs.outcomes(&run.run, n), runs.claim(&run.run, n));
        let tasks = outcomes?.map(|(outcomes, _)| outcomes.tasks).unwrap_or_default();
        let known = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let mut tally: Tally = tasks.values().collect();
        tally.counts.add_many(TaskState::Pending, size.saturating_sub(known));
        let claim = claim?.map(|(claim, _)| claim);
        // A claim is its holder's first turn.
        let turn = claim.as_ref().map_or(0, |claim| claim.turn.saturating_add(1));
        Ok(Batch { tally, held_until: claim.map(|claim| claim.expires_at), turn })
    };
    let batches = (0..).zip(plan.batches.iter().copied()).map(look_at);
    let batches: Vec<Result<Batch, StoreError>> = stream::iter(batches).buffered(AT_A_TIME).collect().await;
    batches.into_iter().collect()
}

/// Marks `wave` as the open one.
async fn open<S: Store>(runs: &Runs<S>, run: &RunRecord, wave: Option<Wave>) -> Result<(), StoreError> {
    if let Some((active, version)) = runs.active(&run.run).await? {
        // Another trigger that was quicker has opened the same.
        runs.swap(&layout::active(&run.run), &version, &Active { wave, ..active }).await?;
    }
    Ok(())
}

async fn close<S: Store>(
    runs: &Runs<S>,
    run: &RunRecord,
    n: u32,
    (halt, trouble): (Halt, Option<&str>),
    now: Timestamp,
) -> Result<(usize, Tally), WorkError> {
    let state = if halt == Halt::Cancelled { TaskState::Cancelled } else { TaskState::Skipped };
    let tasks = close_batch(runs, run, n, now, (state, &reason_of(halt, trouble))).await?;
    Ok((tasks.iter().filter(|(_, _, closed)| *closed).count(), tasks.iter().map(|(_, task, _)| task).collect()))
}

/// Writes down what has kept a worker from a batch of `run`, for whoever gives it up to tell: an order leaves nothing else.
///
/// Where that comes to nothing, or another's trouble is there, it is as well: the logs tell of each.
pub async fn note<S: Store>(runs: &Runs<S>, run: &RunId, why: &str, now: Timestamp) {
    let key = RunKeys::new(run).trouble();
    // What to do about it the log says.
    let why = why.split_once("\nhint: ").map_or(why, |(why, _)| why);
    let why = why.chars().filter(|c| !c.is_control()).take(MAX_TROUBLE).collect();
    let trouble = Trouble { at: now, why };
    let written = match runs.trouble(run).await {
        Ok(Some((known, _))) if known.why == trouble.why => return,
        Ok(Some((_, version))) => runs.swap(&key, &version, &trouble).await,
        Ok(None) => runs.create(&key, &trouble).await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        tracing::warn!(%run, error = chain(&error), "its trouble was not noted");
    }
}

fn reason_of(halt: Halt, trouble: Option<&str>) -> String {
    let reason = match halt {
        Halt::Cancelled => Stop::Cancelled.reason(),
        Halt::MaxErrors(allowed) => Stop::MaxErrors(allowed).reason(),
        Halt::Canary => Stop::Canary.reason(),
        Halt::Unclaimed => "no worker came for it within the `deadline`".to_owned(),
        Halt::Dying => "one worker after the other ended before it started".to_owned(),
    };
    trouble.map_or_else(|| reason.clone(), |trouble| format!("{reason}; the last trouble of the run: {trouble}"))
}

impl<S: Store, F: Fleet<S>> Worker<S, F> {
    /// Runs batch `n` of `run` as a worker that has to be done by `deadline`: heeds what people ask of the run, ends on
    /// their hosts the scripts that cannot finish in time, and leaves what has not started to another worker.
    ///
    /// # Errors
    /// As [`Worker::run_batch`].
    pub async fn run_until(&self, run: &RunRecord, n: u32, deadline: Timestamp) -> Result<(), WorkError> {
        control::heed(&self.runs, &run.run, &self.gate).await?;
        let left = Duration::try_from(deadline.duration_since(self.clock.now())).unwrap_or_default();
        let admitted = Arc::new(Notify::new());
        let working = self.run_batch(&run.run, n, deadline, false, &admitted);
        let out_of_time = async {
            tokio::time::sleep(left.saturating_sub(END_WITHIN.min(left / 2))).await;
            self.gate.end(Stop::OutOfTime);
        };
        // Who is paid by time does not wait for people: what has not started another worker will.
        let paused = async {
            self.gate.paused().await;
            self.gate.close(Stop::Leaving);
        };
        let watching = async {
            tokio::join!(control::obey(&self.runs, &run.run, &self.gate), out_of_time, paused);
        };
        tokio::select! {
            done = working => done,
            () = watching => Ok(()),
        }
    }
}
