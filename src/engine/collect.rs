//! Detached jobs: seeing where they stand, fetching what they print, ending them.
//!
//! Whoever has the store and can log in may do it, any number at a time: pieces of output are created once, outcomes
//! move by compare-and-swap, and final states never change. What a host does not answer, or not in our words, changes
//! nothing; but one that stays silent long after its script must have ended is given up, and its task is lost.

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;

use super::access::Access;
use super::clock::Clock;
use super::conclude::unasked;
use super::notes::Notes;
use super::places::Places;
use super::reconcile::{Settled, reconcile};
use super::records::Runs;
use super::visit::{Call, Errand};
use super::worker::WorkError;
use crate::domain::run::{RunRecord, Target};
use crate::domain::task::{TaskRecord, TaskState};
use crate::port::{Store, StoreError};

/// Looks after the detached jobs of a run.
#[derive(Debug, Clone)]
pub struct Collector<S> {
    /// Where the run lives.
    pub runs: Runs<S>,
    /// How its hosts are reached.
    pub access: Access<S>,
    /// Tells the time.
    pub clock: Clock,
}

/// What came of one look at all hosts.
#[derive(Debug, Default)]
pub struct Round {
    /// How many tasks run on.
    pub running: usize,
    /// Whether some host has more output than it was asked for.
    pub more: bool,
    /// The hosts that did not answer, and why.
    pub troubles: Vec<(Target, String)>,
    /// The hosts on which something of a task that was ended is still there, and what.
    pub survivors: Vec<(Target, String)>,
}

impl<S: Store> Collector<S> {
    /// Looks at every task of `run` that is not final; where none is left, the run gets its verdict.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn look(&self, run: &RunRecord) -> Result<Round, WorkError> {
        self.go_round(run, Errand::Look).await
    }

    /// The same for the tasks of batch `n` alone; the verdict is left to whoever carries the run.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn look_at_batch(&self, run: &RunRecord, n: u32) -> Result<Round, WorkError> {
        self.visit(run, &[Notes::new(&self.runs, &run.run, n)], Errand::Look).await
    }

    /// Ends every task of `run` that is not final: TERM, 10 s, KILL, for its whole process group; names what survives.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn end(&self, run: &RunRecord) -> Result<Round, WorkError> {
        self.go_round(run, Errand::End).await
    }

    /// The same for the tasks of batch `n` alone.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn end_batch(&self, run: &RunRecord, n: u32) -> Result<Round, WorkError> {
        self.visit(run, &[Notes::new(&self.runs, &run.run, n)], Errand::End).await
    }

    async fn go_round(&self, run: &RunRecord, errand: Errand) -> Result<Round, WorkError> {
        let mut round = self.visit(run, &self.notes(run).await?, errand).await?;
        if round.running == 0 && !self.settle(run).await? {
            round.running = 1;
        }
        Ok(round)
    }

    async fn visit(&self, run: &RunRecord, notes: &[Notes<'_, S>], errand: Errand) -> Result<Round, WorkError> {
        let places = Places::default();
        let visit = async |mut call: Call<'_, S>| {
            let visited = places.attend(false, call.visit(errand, None)).await;
            (call.target, call.record, call.survivors, visited)
        };
        let mut visits = Vec::new();
        for notes in notes {
            let open = self.open(run, notes.n).await?;
            let running = open.into_iter().filter(|(_, record)| record.state == TaskState::Running);
            visits.extend(running.map(|(target, record)| visit(Call::new(self, run, notes, target, record))));
        }
        let mut visits = stream::iter(visits).buffer_unordered(Places::ALL);
        let mut round = Round::default();
        while let Some((target, record, survivors, visited)) = visits.next().await {
            round.running += usize::from(visited.is_err() || !record.state.is_final());
            round.survivors.extend(survivors.map(|survivors| (target.clone(), survivors)));
            match visited {
                Ok(more) => round.more |= more,
                Err(why) => round.troubles.push((target, why)),
            }
        }
        Ok(round)
    }

    /// Notes on each batch of `run`; none where it is not planned yet.
    pub(super) async fn notes<'a>(&'a self, run: &'a RunRecord) -> Result<Vec<Notes<'a, S>>, StoreError> {
        notes(&self.runs, run).await
    }

    /// The tasks of batch `n` that are not final.
    pub(super) async fn open(&self, run: &RunRecord, n: u32) -> Result<Vec<(Target, TaskRecord)>, StoreError> {
        open(&self.runs, run, n).await
    }

    /// Writes the verdict of `run` where nothing of it runs any more; tells whether it has one.
    pub(super) async fn settle(&self, run: &RunRecord) -> Result<bool, WorkError> {
        settle(&self.runs, run, self.clock.now()).await
    }
}

/// Takes note that the hosts of `run` cannot be asked at all, because of `why`: what they have long forgotten is lost.
/// Tells whether the run has its verdict.
///
/// # Errors
/// Where the store does not answer.
pub async fn give_up<S: Store>(runs: &Runs<S>, run: &RunRecord, why: &str, now: Timestamp) -> Result<bool, WorkError> {
    let mut is_over = true;
    for notes in notes(runs, run).await? {
        is_over &= write_off(runs, run, &notes, why, now).await?;
    }
    Ok(is_over && settle(runs, run, now).await?)
}

/// The same of the tasks of batch `n` alone; the verdict is left to whoever carries the run. Tells whether each of them is
/// final.
///
/// # Errors
/// Where the store does not answer.
pub async fn give_up_batch<S: Store>(
    runs: &Runs<S>,
    run: &RunRecord,
    n: u32,
    why: &str,
    now: Timestamp,
) -> Result<bool, WorkError> {
    Ok(write_off(runs, run, &Notes::new(runs, &run.run, n), why, now).await?)
}

async fn write_off<S: Store>(
    runs: &Runs<S>,
    run: &RunRecord,
    notes: &Notes<'_, S>,
    why: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut is_over = true;
    let mut lost = Vec::new();
    for (target, record) in open(runs, run, notes.n).await? {
        let given_up = (record.state == TaskState::Running).then(|| unasked(record, why, run, now));
        match given_up.filter(|record| record.state.is_final()) {
            Some(record) => lost.push((target, record)),
            None => is_over = false,
        }
    }
    let writing = lost.into_iter().map(async |(target, record)| notes.write(&target.instance, record).await);
    // What is not written the next look finds again.
    Ok(is_over & join_all(writing).await.iter().all(Result::is_ok))
}

async fn notes<'a, S: Store>(runs: &'a Runs<S>, run: &'a RunRecord) -> Result<Vec<Notes<'a, S>>, StoreError> {
    let plan = runs.plan(&run.run).await?;
    let batches = plan.map_or(0, |plan| u32::try_from(plan.batches.len()).unwrap_or(u32::MAX));
    Ok((0..batches).map(|n| Notes::new(runs, &run.run, n)).collect())
}

async fn open<S: Store>(runs: &Runs<S>, run: &RunRecord, n: u32) -> Result<Vec<(Target, TaskRecord)>, StoreError> {
    let outcomes = runs.outcomes(&run.run, n).await?.map(|(outcomes, _)| outcomes.tasks).unwrap_or_default();
    let targets = runs.targets(&run.run, n).await?.map(|targets| targets.targets).unwrap_or_default();
    let with_record = |target: Target| {
        let record = outcomes.get(&target.instance).cloned().unwrap_or_else(TaskRecord::pending);
        (!record.state.is_final()).then_some((target, record))
    };
    Ok(targets.into_iter().filter_map(with_record).collect())
}

async fn settle<S: Store>(runs: &Runs<S>, run: &RunRecord, now: Timestamp) -> Result<bool, WorkError> {
    match reconcile(runs, run, now).await {
        Ok(Settled::Finished(_)) => Ok(true),
        // Its driver writes the verdict, or another collector does; or a driver has died since we looked.
        Ok(_) | Err(WorkError::Held(_) | WorkError::Fenced) => Ok(false),
        Err(error) => Err(error),
    }
}
