//! The tick: one pass over what is due and what is active. Whoever makes it, when and how often makes no difference.
//!
//! First every firing since the last tick is decided and made a run, then the cursor moves, then every unfinished run is
//! looked at. One job's trouble, or one run's, holds up no other: a job that could not be decided is noted behind the
//! cursor, and the next tick tries it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use super::claim;
use super::clock::{AHEAD, Clock};
use super::fire::{self, FireError, Fired, Firer, Scheduled, skip};
use super::notify;
use super::reconcile::{self, Settled, conclude, reconcile, seal, write_verdict};
use super::records::Runs;
use super::start::{Started, agreed, write_plan};
use super::worker::WorkError;
use crate::domain::diagnostic::chain;
use crate::domain::firing::Cursor;
use crate::domain::id::{JobName, RunId};
use crate::domain::layout::{self, Key};
use crate::domain::notice::Notice;
use crate::domain::plan::target;
use crate::domain::run::{Carrier, Plan, RunRecord, RunState, Sealed, Target, Verdict};
use crate::domain::task::{Counts, TaskState};
use crate::port::{Inventory, InventoryError, Scripts, Store, StoreError, Version, Written};

/// How many jobs, or runs, are looked at at a time: enough to hide a store's latency.
const AT_A_TIME: usize = 16;

/// How many names are asked for at a time; what S3 gives at most.
const PAGE: usize = 1000;

/// How long an inventory may take to answer where nothing else is said: one that hangs holds up no other run.
pub const SELECT_WITHIN: Duration = Duration::from_mins(1);

/// A mark without a claim that is older than this was left by a firing that nobody came back to.
const ORPHAN: SignedDuration = SignedDuration::from_hours(24);

/// Why a run is skipped that selects nobody.
pub const NOTHING_MATCHES: &str = "no running instance matches";

/// Makes ticks.
#[derive(Debug, Clone)]
pub struct Ticker<S, I, C> {
    /// Makes runs of firings.
    pub firer: Firer<S, C>,
    /// Where instances come from.
    pub inventory: I,
    /// How long that may take to answer.
    pub patience: Duration,
    /// Tells the time.
    pub clock: Clock,
}

/// What came of a tick.
#[derive(Debug, Default)]
pub struct Ticked {
    /// What became of the firings that were due, but for those that were decided before.
    pub fired: Vec<Fired>,
    /// How each unfinished run stands.
    pub runs: Vec<(RunId, Standing)>,
    /// What could not be done, and is tried again: the job or the run, and why.
    pub troubles: Vec<(String, String)>,
}

/// How an unfinished run stands after a look at it.
#[derive(Debug)]
pub enum Standing {
    /// It is finished now.
    Finished(Arc<RunRecord>, Verdict),
    /// Somebody who may be alive drives it.
    Driven,
    /// It is planned, and nobody drives it.
    Ready(Started),
    /// Nobody needs to drive it; its scripts run on their hosts without us.
    Detached(Arc<RunRecord>),
    /// It is not to be planned yet, for this reason.
    Waiting(String),
    /// It cannot be planned, for the inventory does not answer.
    Unselected(String),
}

impl<S: Store, I: Inventory, C: Scripts> Ticker<S, I, C> {
    fn runs(&self) -> &Runs<S> {
        &self.firer.runs
    }

    /// Makes the tick of `at`, or of now where that is earlier: fires what is due among `jobs`, and looks at every
    /// unfinished run.
    ///
    /// # Errors
    /// Where the store does not answer; the next tick does what this one did not.
    pub async fn tick(&self, jobs: &[Scheduled], at: Timestamp) -> Result<Ticked, StoreError> {
        let mut ticked = self.fire_due(jobs, at).await?;
        let active = self.active().await?;
        let looks = active.into_iter().map(|run| async move {
            let standing = self.advance(&run).await;
            (run, standing)
        });
        let mut looks = stream::iter(looks).buffered(AT_A_TIME);
        while let Some((run, standing)) = looks.next().await {
            match standing {
                Ok(Some(standing)) => ticked.runs.push((run, standing)),
                Ok(None) => {}
                // Somebody else is at it, which is as good.
                Err(WorkError::Held(_) | WorkError::Fenced) => ticked.runs.push((run, Standing::Driven)),
                Err(error) => ticked.troubles.push((run.to_string(), told(&error))),
            }
        }
        Ok(ticked)
    }

    /// Fires what is due among `jobs` until `at`, then moves the cursor.
    async fn fire_due(&self, jobs: &[Scheduled], at: Timestamp) -> Result<Ticked, StoreError> {
        let now = self.clock.now();
        let until = at.min(now);
        let (cursor, version) = self.cursor(now, until).await?;
        let mut ticked = Ticked::default();
        let mut failed: BTreeMap<JobName, Timestamp> = BTreeMap::new();
        let mut tried: BTreeMap<&JobName, Timestamp> = BTreeMap::new();
        let mut due = Vec::new();
        for scheduled in jobs {
            // A job that nobody has ever looked at begins now.
            let after = cursor.of(&scheduled.job.name).unwrap_or_else(|| just_before(until));
            tried.insert(&scheduled.job.name, after);
            if !scheduled.calendar.between(after, until, 1).is_empty() {
                due.push(self.fire(scheduled, after, until, now));
            }
        }
        let mut fired = stream::iter(due).buffer_unordered(AT_A_TIME);
        while let Some((job, after, fired, error)) = fired.next().await {
            ticked.fired.extend(fired);
            if let Some(error) = error {
                ticked.troubles.push((job.to_string(), chain(&error)));
                failed.insert(job, after);
            }
        }
        self.move_cursor((cursor, version), until, &tried, &failed).await?;
        Ok(ticked)
    }

    async fn fire(
        &self,
        scheduled: &Scheduled,
        after: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> (JobName, Timestamp, Vec<Fired>, Option<FireError>) {
        let (fired, error) = self.firer.fire(scheduled, after, until, now).await;
        (scheduled.job.name.clone(), after, fired, error)
    }

    /// The cursor; at first it stands just before this tick.
    async fn cursor(&self, now: Timestamp, until: Timestamp) -> Result<(Cursor, Option<Version>), StoreError> {
        Ok(match self.runs().read::<Cursor>(&layout::cursor()).await? {
            None => (Cursor::at(just_before(until)), None),
            Some((cursor, version)) if cursor.ticked.duration_since(now) > AHEAD => {
                tracing::warn!(cursor = %cursor.ticked, %now, "the clock that moved the cursor was wrong; it is set back");
                (cursor.set_back(just_before(until)), Some(version))
            }
            Some((cursor, version)) => (cursor, Some(version)),
        })
    }

    /// Moves the cursor over what was decided of the jobs in `tried` until `until`: all firings since the time given
    /// there, but for those of the jobs in `failed`.
    async fn move_cursor(
        &self,
        seen: (Cursor, Option<Version>),
        until: Timestamp,
        tried: &BTreeMap<&JobName, Timestamp>,
        failed: &BTreeMap<JobName, Timestamp>,
    ) -> Result<(), StoreError> {
        let key = layout::cursor();
        let (mut found, mut version) = seen;
        loop {
            let next = found.moved(until, tried, failed);
            if version.is_some() && next == found {
                return Ok(());
            }
            let written = match &version {
                Some(version) => self.runs().swap(&key, version, &next).await?,
                None => self.runs().create(&key, &next).await?,
            };
            if let Written::Done(_) = written {
                return Ok(());
            }
            // Another scheduler was quicker: what it found out counts too.
            if let Some((theirs, theirs_version)) = self.runs().read::<Cursor>(&key).await? {
                (found, version) = (theirs, Some(theirs_version));
            } else {
                version = None;
            }
        }
    }

    /// The runs that are marked as unfinished, in the order of their jobs and times.
    async fn active(&self) -> Result<Vec<RunId>, StoreError> {
        let mut runs = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = self.runs().store().list(layout::ACTIVE, after.as_ref(), PAGE).await?;
            let Some(last) = page.last().cloned() else { return Ok(runs) };
            runs.extend(page.iter().filter_map(layout::run_of_mark));
            after = Some(last);
        }
    }

    /// Looks at an unfinished run and takes it as far as it can be taken without starting anything on a host.
    ///
    /// # Errors
    /// [`WorkError`]; the next look goes on from there.
    pub async fn advance(&self, run: &RunId) -> Result<Option<Standing>, WorkError> {
        if self.firer.driven.contains(run) {
            return Ok(Some(Standing::Driven));
        }
        let (runs, now) = (self.runs(), self.clock.now());
        let Some(record) = runs.run(run).await?.map(Arc::new) else {
            let old = now.checked_sub(ORPHAN).unwrap_or(Timestamp::MIN).strftime("%Y%m%dT%H%M%SZ").to_string();
            // A firing may be old and its mark new: whoever decided it is at it, or the next to decide will be.
            let (state, _) = fire::read(runs, &run.job()).await?;
            if run.time() < old.as_str() && !state.is_being_fired(run) {
                runs.store().remove(&layout::active(run)).await?;
            }
            return Ok(None);
        };
        let finished = |verdict| Ok(Some(Standing::Finished(Arc::clone(&record), verdict)));
        if let Some(verdict) = runs.verdict(run).await? {
            conclude(runs, &record, &verdict).await?;
            return finished(verdict);
        }
        if let Some(reason) = &record.skipped {
            return finished(write_verdict(runs, &record, skip(reason.clone(), now)).await?);
        }
        if record.carrier.is_caller() {
            return Ok(Some(match reconcile(runs, &record, now).await? {
                Settled::Finished(verdict) => Standing::Finished(record, verdict),
                Settled::Driven => Standing::Driven,
                Settled::Detached => Standing::Detached(record),
            }));
        }
        if record.carrier != self.firer.carrier {
            return Ok(Some(Standing::Driven));
        }
        if let Some((active, _)) = runs.active(run).await?
            && active.driver.is_some_and(|driver| !claim::has_lapsed(&driver, now))
        {
            return Ok(Some(Standing::Driven));
        }
        let plan = match runs.plan(run).await? {
            Some(plan) => plan,
            None => match self.plan(&record, now).await? {
                Ok(plan) => plan,
                Err(standing) => return Ok(Some(standing)),
            },
        };
        if let Some(sealed) = plan.sealed {
            return finished(write_verdict(runs, &record, sealed_verdict(sealed, now)).await?);
        }
        if record.carrier == Carrier::Functions {
            // Whoever sends for its workers looks at all of its batches anyway.
            return Ok(Some(Standing::Ready(Started { run: record, plan, lease: None })));
        }
        let tally = reconcile::tally(runs, &record, &plan).await?;
        let running = tally.counts.of(TaskState::Running);
        let is_over = tally.counts.of(TaskState::Pending) == 0 && (running == 0 || record.job.mode.is_detached());
        Ok(Some(match (is_over, running) {
            (true, 0) => {
                let ended = tally.ended_by(now);
                let verdict = reconcile::verdict(&plan, tally.counts, None, ended);
                Standing::Finished(Arc::clone(&record), write_verdict(runs, &record, verdict).await?)
            }
            (true, _) => Standing::Detached(record),
            (false, _) => Standing::Ready(Started { run: record, plan, lease: None }),
        }))
    }

    /// Plans a run where it may be planned; else tells how it stands.
    async fn plan(&self, record: &RunRecord, now: Timestamp) -> Result<Result<Plan, Standing>, WorkError> {
        let (runs, job) = (self.runs(), &record.job);
        let control = runs.control(&record.run).await?.map(|(control, _)| control).unwrap_or_default();
        let too_late = record.plan_before < now;
        let seal_as = |state, reason: String| async move { seal(runs, record, Sealed { state, reason }).await };
        if control.cancelled {
            let reason = format!("cancelled by {} before it started", control.actor);
            return Ok(Ok(seal_as(RunState::Cancelled, reason).await?));
        }
        if control.paused {
            if too_late {
                return Ok(Ok(seal_as(RunState::Skipped, "paused past its deadline".to_owned()).await?));
            }
            return Ok(Err(Standing::Waiting(format!("paused by {}", control.actor))));
        }
        // Who asks for a run now does not mean to wait for others.
        if record.scheduled_for.is_some() {
            let (state, version) = fire::read(runs, &job.name).await?;
            if version.is_some() && !state.active.contains(&record.run) {
                // Somebody slept while others claimed it, ran it and pruned it, and has claimed it again since.
                let reason = "it was over: it was claimed again after it had been removed".to_owned();
                return Ok(Ok(seal_as(RunState::Skipped, reason).await?));
            }
            if !state.is_turn_of(&record.run, job.schedule.overlap) {
                let earlier = state.active.first().map_or_else(String::new, ToString::to_string);
                if too_late {
                    let reason = format!("overlap: run `{earlier}` was active until the deadline");
                    return Ok(Ok(seal_as(RunState::Skipped, reason).await?));
                }
                return Ok(Err(Standing::Waiting(format!("run `{earlier}` is still active"))));
            }
        }
        let selected = match record.retry_of {
            // It goes where it was said to when it was claimed.
            Some(_) => Ok(agreed(runs, &record.run).await?),
            None => {
                tokio::time::timeout(self.patience, self.select(record)).await.unwrap_or_else(|_| Err(self.silent()))
            }
        };
        let targets = match selected {
            Ok(targets) => targets,
            // Never an empty fleet.
            Err(error) if too_late => {
                return Ok(Ok(seal_as(RunState::Failed, error.to_string()).await?));
            }
            Err(error) => return Ok(Err(Standing::Unselected(error.to_string()))),
        };
        if too_late {
            let reason = "not planned before its deadline".to_owned();
            return Ok(Ok(seal_as(RunState::Skipped, reason).await?));
        }
        if targets.is_empty() {
            return Ok(Ok(seal_as(RunState::Skipped, NOTHING_MATCHES.to_owned()).await?));
        }
        let planned = write_plan(runs, record, targets).await?;
        if planned.is_ours {
            // Whoever finds a plan that is written may come after the end.
            notify::enqueue(runs, record, Notice::started(record), now).await?;
        }
        Ok(Ok(planned.plan))
    }

    /// Where `record` is to run: on what its job selects, or of that on the one instance whose start it answers to.
    async fn select(&self, record: &RunRecord) -> Result<Vec<Target>, InventoryError> {
        let job = &record.job;
        let instances = match &record.instance {
            Some(only) => self.inventory.select_one(job, only).await?.into_iter().collect(),
            None => self.inventory.select(job).await?,
        };
        Ok(instances.iter().map(|instance| target(job, instance)).collect())
    }

    fn silent(&self) -> InventoryError {
        let why = format!("it has not answered within {} s", self.patience.as_secs());
        InventoryError::Unavailable { at: "of the job".to_owned(), why }
    }
}

/// The last instant before `at`.
fn just_before(at: Timestamp) -> Timestamp {
    at.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(at)
}

/// The verdict of a run that was never planned.
pub fn sealed_verdict(sealed: Sealed, now: Timestamp) -> Verdict {
    Verdict { state: sealed.state, reason: Some(sealed.reason), counts: Counts::default(), finished_at: now }
}

fn told(error: &WorkError) -> String {
    match error {
        WorkError::Store(error) => chain(&**error),
        other => chain(other),
    }
}
