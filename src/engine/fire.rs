//! Makes runs of firings: one each, whoever asks and however often.
//!
//! What becomes of a firing is decided once, by compare-and-swap on the job's state, and then carried out: the mark that
//! a run is active, its script, its claim. Whoever finds a decision that was not carried out to its end does the rest;
//! every step of it does nothing where it was done before.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::clock::AHEAD;
use super::control;
use super::reconcile::{Settled, reconcile, write_verdict};
use super::records::{Runs, damaged};
use super::worker::WorkError;
use crate::domain::diagnostic::chain;
use crate::domain::firing::{Decided, Decision, Fate, JobState, MOST_ACTIVE, Reckoning, decide};
use crate::domain::id::{JobName, RunId};
use crate::domain::job::{Job, Overlap};
use crate::domain::layout::{self, Key, RunKeys};
use crate::domain::run::{Active, Carrier, RunRecord, RunState, SCHEMA, Verdict};
use crate::domain::schedule::Calendar;
use crate::domain::script::{ScriptRef, sha256_hex};
use crate::port::{Scripts, Store, StoreError, Version, Written};

/// How often others may change the state of a job while we decide.
const TRIES: u32 = 20;

/// A job that a scheduler knows.
#[derive(Debug, Clone)]
pub struct Scheduled {
    /// The job.
    pub job: Job,
    /// When it fires.
    pub calendar: Calendar,
}

/// What became of a firing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fired {
    /// This run.
    Run(RunId),
    /// It was skipped, for this reason; the run is the record of that.
    Skipped(RunId, String),
}

/// Why a firing is not decided yet.
#[derive(Debug, thiserror::Error)]
pub enum FireError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An earlier run of the job could not be looked at.
    #[error(transparent)]
    Earlier(#[from] WorkError),
    /// The script cannot be had.
    #[error("script: {0}")]
    Script(String),
}

impl FireError {
    /// What is damaged, where that is it.
    fn damage(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error).filter(|error| error.is_damage()),
            Self::Earlier(WorkError::Store(error)) => Some(&**error).filter(|error| error.is_damage()),
            _ => None,
        }
    }
}

/// What came of the firings of a job.
#[derive(Debug, Default)]
pub struct OfJob {
    /// What became of each.
    pub fired: Vec<Fired>,
    /// The earlier runs that cannot be read and count as active, and why.
    pub troubles: Vec<(RunId, String)>,
    /// Why not all of them are decided; asking again goes on from there.
    pub error: Option<FireError>,
}

/// Who fires.
#[derive(Debug, Clone)]
pub struct Firer<S, C> {
    /// Where runs live.
    pub runs: Runs<S>,
    /// Where scripts come from.
    pub scripts: C,
    /// Who is told to have asked.
    pub actor: String,
    /// Who carries what is fired.
    pub carrier: Carrier,
    /// The runs that this process drives at this moment. It knows that better than any clock: where that was set on, the
    /// leases on them look as if they had lapsed.
    pub driven: BTreeSet<RunId>,
}

impl<S: Store, C: Scripts> Firer<S, C> {
    /// Decides what becomes of the firings of a job after `after` and up to `until`, in their order, and carries it out.
    pub async fn fire(&self, scheduled: &Scheduled, after: Timestamp, until: Timestamp, now: Timestamp) -> OfJob {
        let mut of_job = OfJob::default();
        of_job.error = self.fire_into(&mut of_job, scheduled, (after, until), now).await.err();
        of_job
    }

    async fn fire_into(
        &self,
        of_job: &mut OfJob,
        Scheduled { job, calendar }: &Scheduled,
        (after, until): (Timestamp, Timestamp),
        now: Timestamp,
    ) -> Result<(), FireError> {
        let key = layout::job_state(&job.name);
        'again: for _ in 0..TRIES {
            let (mut state, mut version) = read(&self.runs, &job.name).await?;
            let mut after = after;
            // What somebody decided and did not live to carry out comes first.
            if let Some(decided) = &state.decided {
                if !state.is_carried_out(&RunId::of_firing(&job.name, decided.at)) {
                    of_job.fired.extend(self.carry_out(job, decided, now).await?);
                }
                // What is due by then is decided, be the job's delay what it may; what a clock decided that was years
                // ahead says nothing of the years between.
                if decided.until.duration_since(now) <= AHEAD {
                    after = after.max(calendar.due(decided.until));
                }
            }
            of_job.troubles = self.forget_finished(job, &mut state, now).await?;
            let mut firings = Reckoning::new(&job.schedule, calendar, after, until, now);
            while firings.goes_on() {
                // After a year of sleep there may be half a million: others have their turn meanwhile.
                tokio::task::yield_now().await;
            }
            for turn in firings.turns() {
                let (next, is_longer) = match decide(&job.name, job.schedule.overlap, &state, &turn) {
                    Decision::Longer(next) => (next, true),
                    Decision::Now(next) => (next, false),
                };
                let written = match &version {
                    Some(version) => self.runs.swap(&key, version, &next).await?,
                    None => self.runs.create(&key, &next).await?,
                };
                // Somebody else is deciding: what is left to decide, the state tells.
                let Written::Done(written) = written else { continue 'again };
                (state, version) = (next, Some(written));
                if let Some(decided) = state.decided.as_ref().filter(|_| !is_longer) {
                    of_job.fired.extend(self.carry_out(job, decided, now).await?);
                }
            }
            return Ok(());
        }
        Err(changed(&key).into())
    }

    /// Takes finished runs from the active ones: whoever finished them may have died before it could, and what workers
    /// have done since the last tick nobody has put together yet. Returns those that cannot be read: they may be running.
    async fn forget_finished(
        &self,
        job: &Job,
        state: &mut JobState,
        now: Timestamp,
    ) -> Result<Vec<(RunId, String)>, FireError> {
        let mut troubles = Vec::new();
        for run in state.active.clone() {
            let is_last = state.decided.as_ref().is_some_and(|last| RunId::of_firing(&job.name, last.at) == run);
            let is_finished = self.is_finished(job, &run, is_last, now).await;
            if let Err(error) = &is_finished
                && let Some(damage) = error.damage()
            {
                troubles.push((run, counts_as_active(damage)));
            } else if is_finished? {
                state.active.retain(|active| *active != run);
            }
        }
        Ok(troubles)
    }

    async fn is_finished(&self, job: &Job, run: &RunId, is_last: bool, now: Timestamp) -> Result<bool, FireError> {
        if self.runs.verdict(run).await?.is_some() {
            return Ok(true);
        }
        if job.schedule.overlap == Overlap::Allow || self.driven.contains(run) {
            return Ok(false);
        }
        // What was decided last may not be claimed yet; of any other without a claim somebody has removed all there was.
        let Some(record) = self.runs.run(run).await? else { return Ok(!is_last) };
        match reconcile(&self.runs, &record, now).await {
            Ok(settled) => Ok(matches!(settled, Settled::Finished(_))),
            // Somebody is at it.
            Err(WorkError::Held(_) | WorkError::Fenced) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Does what was decided, as far as it is not done; none where it is.
    async fn carry_out(&self, job: &Job, decided: &Decided, now: Timestamp) -> Result<Option<Fired>, FireError> {
        let run = RunId::of_firing(&job.name, decided.at);
        let keys = RunKeys::new(&run);
        let mut skipped = match &decided.fate {
            Fate::Run => None,
            Fate::Skip(why) => Some(why.reason(decided.until)),
        };
        // What is there may be damaged, and is there all the same.
        if self.runs.store().get(&keys.run()).await?.is_some() {
            if self.runs.store().get(&keys.result()).await?.is_none() {
                // Without its mark no tick would find it.
                self.runs.create(&layout::active(&run), &Active { driver: None, wave: None }).await?;
            }
            return Ok(None);
        }
        let is_late = decided.plan_before < now;
        let script = match self.scripts.script(job).await {
            Ok(script) => {
                if is_late && skipped.is_none() {
                    let why = "the scheduler that decided to run it ended, and the next came after its deadline";
                    skipped = Some(why.to_owned());
                }
                script
            }
            Err(why) if is_late || skipped.is_some() => {
                // Nothing of a skipped run is ever sent anywhere.
                skipped.get_or_insert_with(|| format!("its script could not be had until its deadline: {why}"));
                Vec::new()
            }
            Err(why) => return Err(FireError::Script(why)),
        };
        let record = RunRecord {
            schema: SCHEMA.to_owned(),
            run: run.clone(),
            job: job.clone(),
            script: ScriptRef { bytes: script.len() as u64, sha256: sha256_hex(&script), origin: job.source.origin() },
            actor: self.actor.clone(),
            retry_of: None,
            scheduled_for: Some(decided.at),
            started_at: now,
            plan_before: decided.plan_before,
            carrier: self.carrier,
            skipped: skipped.clone(),
            instance: None,
        };
        self.runs.create(&layout::active(&run), &Active { driver: None, wave: None }).await?;
        if skipped.is_none() {
            // After the mark: while that stands nobody takes the script for unused.
            self.runs.store().create(&layout::blob(&record.script.sha256), script).await?;
        }
        // Before the claim: where that stands all of this is done.
        for earlier in &decided.replaces {
            match control::cancel(&self.runs, earlier, &format!("run {run}")).await {
                // It goes on, and this one waits for it as long as it may.
                Ok(()) | Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.runs.create(&keys.run(), &record).await? == Written::Conflict {
            // Somebody else has carried it out meanwhile, and need not have found it too late: theirs stands.
            return Ok(None);
        }
        if let Some(reason) = &skipped {
            write_verdict(&self.runs, &record, skip(reason.clone(), now)).await?;
        }
        Ok(Some(match skipped {
            None => Fired::Run(run),
            Some(reason) => Fired::Skipped(run, reason),
        }))
    }
}

/// What is told of a run that cannot be read.
pub(super) fn counts_as_active(damage: &StoreError) -> String {
    format!("{}; the run counts as active until that is mended, or all of the run removed", chain(damage))
}

/// The verdict of a run that a policy keeps from running.
pub fn skip(reason: String, now: Timestamp) -> Verdict {
    Verdict::unplanned(RunState::Skipped, reason, now)
}

/// Has the firings of a job mind `run`, which somebody has asked for, as they mind each other.
///
/// Called when the run is claimed: what the state names can be looked at, and settled.
///
/// # Errors
/// Where the store does not answer.
pub async fn mind<S: Store>(runs: &Runs<S>, run: &RunRecord) -> Result<(), StoreError> {
    // What is run because one instance has started is beside the schedule.
    if run.job.schedule.expressions.is_empty() || run.instance.is_some() {
        return Ok(());
    }
    let key = layout::job_state(&run.job.name);
    for _ in 0..TRIES {
        let (mut state, version) = read(runs, &run.job.name).await?;
        if state.active.contains(&run.run) || state.knows_end_of(&run.run) || state.active.len() >= MOST_ACTIVE {
            return Ok(());
        }
        state.active.push(run.run.clone());
        let written = match &version {
            Some(version) => runs.swap(&key, version, &state).await?,
            None => runs.create(&key, &state).await?,
        };
        if let Written::Done(_) = written {
            return Ok(());
        }
    }
    Err(changed(&key))
}

/// The runs of `run`'s job that are not over but for `run` itself, as far as its firings mind them.
///
/// # Errors
/// Where the store does not answer.
pub async fn beside<S: Store>(runs: &Runs<S>, run: &RunRecord) -> Result<Vec<RunId>, StoreError> {
    let (state, _) = read(runs, &run.job.name).await?;
    let mut beside = Vec::new();
    for other in state.active {
        if other == run.run {
            continue;
        }
        match runs.verdict(&other).await {
            Ok(Some(_)) => {}
            Ok(None) | Err(StoreError::Damaged { .. }) => beside.push(other),
            Err(error) => return Err(error),
        }
    }
    Ok(beside)
}

fn changed(key: &Key) -> StoreError {
    damaged(key, format!("it was changed {TRIES} times while it was being written"))
}

/// What has become of the firings of `job`; the version is none where nothing has.
///
/// # Errors
/// As [`Runs::read`].
pub async fn read<S: Store>(runs: &Runs<S>, job: &JobName) -> Result<(JobState, Option<Version>), StoreError> {
    let found = runs.read::<JobState>(&layout::job_state(job)).await?;
    Ok(found.map_or_else(Default::default, |(state, version)| (state, Some(version))))
}
