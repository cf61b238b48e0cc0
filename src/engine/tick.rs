//! The tick: one pass over what is due and what is active. Whoever makes it, when and how often makes no difference.
//!
//! First every firing since the last tick is decided and made a run, then the cursor moves, then every unfinished run is
//! looked at. One job's trouble, or one run's, holds up no other: a job that could not be decided is noted behind the
//! cursor, and the next tick tries it again; a run whose inventory does not answer is waited for by nobody.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::clock::Clock;
use super::fire::{self, Fired, Firer, Scheduled, skip};
use super::reconcile::{self, Settled, conclude, reconcile, seal, write_verdict};
use super::records::Runs;
use super::start::{Started, agreed, write_plan};
use super::worker::WorkError;
use super::{claim, cursor, notify};
use crate::domain::cursor::Looked;
use crate::domain::diagnostic::chain;
use crate::domain::id::RunId;
use crate::domain::layout::{self, Key};
use crate::domain::notice::Notice;
use crate::domain::plan::target;
use crate::domain::run::{Carrier, Plan, RunRecord, RunState, Sealed, Target, Verdict};
use crate::domain::task::TaskState;
use crate::port::{Inventory, InventoryError, Scripts, Store, StoreError};

/// How many jobs, or runs, are looked at at a time: enough to hide a store's latency.
const AT_A_TIME: usize = 16;

/// How many names are asked for at a time; what S3 gives at most.
const PAGE: usize = 1000;

/// How long an inventory may take to answer where nothing else is said: one that hangs holds up no other run.
pub const SELECT_WITHIN: Duration = Duration::from_mins(1);

/// How long one that is being asked takes another's place: few at a time are kind to an inventory and to our memory, and
/// those that hang hold up nobody.
const PATIENCE: Duration = Duration::from_secs(5);

/// By how much the clocks of several schedulers differ without anybody being told.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

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

/// What came of firing what is due.
#[derive(Debug, Default)]
pub struct Ticked {
    /// What became of the firings that were due, but for those that were decided before.
    pub fired: Vec<Fired>,
    /// The unfinished runs, which are to be looked at, in the order of their jobs and times.
    pub active: Vec<RunId>,
    /// What could not be done, and is tried again: the job or the run, and why.
    pub troubles: Vec<(String, String)>,
    /// Up to when nothing fires, where a clock that is ahead of this one has decided it already.
    pub silent_until: Option<Timestamp>,
}

/// What a look at an unfinished run has found: how it stands, none where it is none; or why that is not known.
pub type Look = (RunId, Result<Option<Standing>, String>);

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

    /// Makes the tick of `at`, or of now where that is earlier: fires what is due among `jobs`. What it fired, and
    /// whatever else is unfinished, is to be [looked at](Self::look) then.
    ///
    /// # Errors
    /// Where the store does not answer; the next tick does what this one did not.
    pub async fn tick(&self, jobs: &[Scheduled], at: Timestamp) -> Result<Ticked, StoreError> {
        let mut ticked = self.fire_due(jobs, at).await?;
        ticked.active = self.active().await?;
        Ok(ticked)
    }

    /// Looks at `runs`, each by itself: what is found of one comes when it is known, whatever the others wait for.
    pub fn look(self: Arc<Self>, runs: Vec<RunId>) -> impl Stream<Item = Look> + Send + use<S, I, C> {
        let selecting = Arc::new(Semaphore::new(AT_A_TIME));
        let this = Arc::clone(&self);
        let looks = stream::iter(runs).map(move |run| {
            let this = Arc::clone(&this);
            async move {
                let found = this.approach(&run).await;
                (run, found)
            }
        });
        let looks = looks.buffer_unordered(AT_A_TIME).map(move |(run, found)| {
            let (this, selecting) = (Arc::clone(&self), Arc::clone(&selecting));
            async move {
                let standing = match found {
                    Ok(Found::Unplanned(record)) => this.take_on(record, &selecting).await.map(Some),
                    Ok(Found::Known(standing)) => Ok(standing),
                    Err(error) => Err(error),
                };
                let standing = match standing {
                    // Somebody else is at it, which is as good.
                    Err(WorkError::Held(_) | WorkError::Fenced) => Ok(Some(Standing::Driven)),
                    standing => standing.map_err(|error| told(&error)),
                };
                (run, standing)
            }
        });
        // Whoever waits for an inventory is in nobody's way.
        looks.buffer_unordered(usize::MAX)
    }

    /// Fires what is due among `jobs` until `at`, then moves the cursor.
    async fn fire_due(&self, jobs: &[Scheduled], at: Timestamp) -> Result<Ticked, StoreError> {
        let now = self.clock.now();
        let until = at.min(now);
        let held = cursor::read(self.runs(), now, until).await?;
        let silent_until = Some(held.cursor.ticked).filter(|ticked| ticked.duration_since(now) > SKEW);
        let mut ticked = Ticked { silent_until, ..Ticked::default() };
        // Nearly every tick: 10,000 names take long to be found one by one.
        let is_plain = held.cursor.is_of(jobs.iter().map(|scheduled| &scheduled.job.name));
        let mut due = Vec::new();
        let mut looked = Vec::with_capacity(jobs.len());
        for (n, scheduled) in jobs.iter().enumerate() {
            let (job, delay) = (&scheduled.job.name, scheduled.calendar.delay());
            // A job that nobody has ever looked at begins now.
            let since = if is_plain { Some(held.cursor.ticked) } else { held.cursor.since(job, delay) };
            let from = since.unwrap_or_else(|| cursor::just_before(until));
            looked.push(Looked { job, from, delay, is_decided: true });
            if !scheduled.calendar.between(from, until, 1).is_empty() {
                due.push(async move { (n, self.firer.fire(scheduled, from, until, now).await) });
            }
        }
        let mut fired = stream::iter(due).buffer_unordered(AT_A_TIME);
        while let Some((n, of_job)) = fired.next().await {
            ticked.fired.extend(of_job.fired);
            ticked.troubles.extend(of_job.troubles.into_iter().map(|(run, why)| (run.to_string(), why)));
            if let (Some(error), Some(looked)) = (of_job.error, looked.get_mut(n)) {
                ticked.troubles.push((looked.job.to_string(), chain(&error)));
                looked.is_decided = false;
            }
        }
        // By name, as the cursor's jobs are, which it then compares one by one; the order of their files is nearly that.
        looked.sort_by_key(|looked| looked.job);
        cursor::advance(self.runs(), held, now, until, &looked).await?;
        Ok(ticked)
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
        match self.approach(run).await? {
            Found::Known(standing) => Ok(standing),
            Found::Unplanned(record) => self.take_on(record, &Semaphore::new(1)).await.map(Some),
        }
    }

    /// Takes an unfinished run as far as it can be taken without asking its inventory.
    async fn approach(&self, run: &RunId) -> Result<Found, WorkError> {
        let driven = Ok(Found::Known(Some(Standing::Driven)));
        if self.firer.driven.contains(run) {
            return driven;
        }
        let (runs, now) = (self.runs(), self.clock.now());
        let Some(record) = runs.run(run).await?.map(Arc::new) else {
            let old = now.checked_sub(ORPHAN).unwrap_or(Timestamp::MIN).strftime("%Y%m%dT%H%M%SZ").to_string();
            // A firing may be old and its mark new: whoever decided it is at it, or the next to decide will be.
            let (state, _) = fire::read(runs, &run.job()).await?;
            if run.time() < old.as_str() && !state.is_being_fired(run) {
                runs.store().remove(&layout::active(run)).await?;
            }
            return Ok(Found::Known(None));
        };
        let finished = |verdict| Ok(Found::Known(Some(Standing::Finished(Arc::clone(&record), verdict))));
        if let Some(verdict) = runs.verdict(run).await? {
            conclude(runs, &record, &verdict).await?;
            return finished(verdict);
        }
        if let Some(reason) = &record.skipped {
            return finished(write_verdict(runs, &record, skip(reason.clone(), now)).await?);
        }
        if record.carrier.is_caller() {
            return Ok(Found::Known(Some(match reconcile(runs, &record, now).await? {
                Settled::Finished(verdict) => Standing::Finished(record, verdict),
                Settled::Driven => Standing::Driven,
                Settled::Detached => Standing::Detached(record),
            })));
        }
        if record.carrier != self.firer.carrier {
            return driven;
        }
        if let Some((active, _)) = runs.active(run).await?
            && active.driver.is_some_and(|driver| !claim::has_lapsed(&driver, now))
        {
            return driven;
        }
        match runs.plan(run).await? {
            Some(plan) => Ok(Found::Known(Some(self.go_on(record, plan).await?))),
            None => Ok(Found::Unplanned(record)),
        }
    }

    /// Plans a run where it may be planned, as one of those that `selecting` has places for.
    async fn take_on(&self, record: Arc<RunRecord>, selecting: &Semaphore) -> Result<Standing, WorkError> {
        match self.plan(&record, selecting).await? {
            Ok(plan) => self.go_on(record, plan).await,
            Err(standing) => Ok(standing),
        }
    }

    /// How a planned run stands that nobody drives.
    async fn go_on(&self, record: Arc<RunRecord>, plan: Plan) -> Result<Standing, WorkError> {
        let (runs, now) = (self.runs(), self.clock.now());
        if let Some(sealed) = plan.sealed {
            let verdict = write_verdict(runs, &record, sealed_verdict(sealed, now)).await?;
            return Ok(Standing::Finished(record, verdict));
        }
        if record.carrier == Carrier::Functions {
            // Whoever sends for its workers looks at all of its batches anyway.
            return Ok(Standing::Ready(Started { run: record, plan, lease: None }));
        }
        let tally = reconcile::tally(runs, &record, &plan).await?;
        let running = tally.counts.of(TaskState::Running);
        let is_over = tally.counts.of(TaskState::Pending) == 0 && (running == 0 || record.job.mode.is_detached());
        Ok(match (is_over, running) {
            (true, 0) => {
                let ended = tally.ended_by(now);
                let verdict = reconcile::verdict(&plan, tally, None, ended);
                let verdict = write_verdict(runs, &record, verdict).await?;
                Standing::Finished(record, verdict)
            }
            (true, _) => Standing::Detached(record),
            (false, _) => Standing::Ready(Started { run: record, plan, lease: None }),
        })
    }

    /// Plans a run where it may be planned; else tells how it stands.
    async fn plan(&self, record: &RunRecord, selecting: &Semaphore) -> Result<Result<Plan, Standing>, WorkError> {
        let (runs, job, now) = (self.runs(), &record.job, self.clock.now());
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
        let (selected, place) = match record.retry_of {
            // It goes where it was said to when it was claimed.
            Some(_) => (Ok(agreed(runs, &record.run).await?), None),
            None => self.select(record, selecting).await,
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
        // A plan of many hosts is as large in memory as what was selected.
        let _place = match place {
            Some(place) => Some(place),
            None => selecting.acquire().await.ok(),
        };
        let planned = write_plan(runs, record, targets).await?;
        if planned.is_ours {
            // Whoever finds a plan that is written may come after the end.
            notify::enqueue(runs, record, Notice::started(record), now).await?;
        }
        Ok(Ok(planned.plan))
    }

    /// Where `record` is to run, as its inventory says, asked in one of the places that there are for that; and that place,
    /// where it is still ours.
    async fn select<'a>(&self, record: &RunRecord, places: &'a Semaphore) -> (Selected, Option<SemaphorePermit<'a>>) {
        let mut place = places.acquire().await.ok();
        let selected = tokio::time::timeout(self.patience, self.ask(record));
        tokio::pin!(selected);
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                biased;
                selected = &mut selected => return (selected.unwrap_or_else(|_| Err(self.silent())), place),
                () = &mut patience, if place.is_some() => place = None,
            }
        }
    }

    /// All that the job selects, or of that the one instance whose start the run answers to.
    async fn ask(&self, record: &RunRecord) -> Result<Vec<Target>, InventoryError> {
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

/// What an inventory has answered.
type Selected = Result<Vec<Target>, InventoryError>;

/// How an unfinished run stands as far as its inventory has not been asked.
enum Found {
    /// So, or it is none.
    Known(Option<Standing>),
    /// It is not planned, and nobody drives it.
    Unplanned(Arc<RunRecord>),
}

/// The verdict of a run that was never planned.
pub fn sealed_verdict(sealed: Sealed, now: Timestamp) -> Verdict {
    Verdict::unplanned(sealed.state, sealed.reason, now)
}

fn told(error: &WorkError) -> String {
    match error {
        WorkError::Store(error) if error.is_damage() => fire::counts_as_active(error),
        WorkError::Store(error) => chain(&**error),
        other => chain(other),
    }
}
