//! Ticks when something is due, and keeps at what is under way.

mod leave;
mod once;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::book::{Book, Jobs, Mark, News, mark};
use super::carry::{Carrier, Outcome, Waits};
use super::tell::Teller;
use crate::adapter::store::AnyStore;
use crate::cli::access::actor;
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::verdict;
use crate::cli::output::words::instant;
use crate::cli::post::{Poster, Trouble};
use crate::cli::project::Workspace;
use crate::cli::select::ProjectInventory;
use crate::cli::signals::Signals;
use crate::domain::id::{JobName, RunId};
use crate::domain::run::{Carrier as CarriedBy, RunRecord, Verdict};
use crate::engine::clock::Clock;
use crate::engine::cursor;
use crate::engine::fire::{Fired, Firer};
use crate::engine::gate::Gate;
use crate::engine::looks::Looks;
use crate::engine::records::Runs;
use crate::engine::start::Started;
use crate::engine::tick::{Look, SELECT_WITHIN, Standing, Ticked, Ticker};
use crate::port::StoreError;

/// How often the clock is looked at: it may jump, and machines sleep, of which no timer knows.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often files are looked at; one that stays the same from one look to the next is read.
const FILES_EVERY: Duration = Duration::from_secs(2);

/// The longest time between two ticks.
const TICK_EVERY: Duration = Duration::from_mins(1);

/// How soon the next tick comes after a run ended here, of which many may end at once; at once where one waits for it.
const TICK_AFTER_END: Duration = Duration::from_secs(1);

/// How soon it comes while runs wait or run elsewhere.
const TICK_WHILE_WAITING: Duration = Duration::from_secs(5);

/// A scheduler of a directory store.
pub struct Scheduler {
    runs: Runs<AnyStore>,
    book: Book,
    /// The inventory that was named over the project's.
    inventory: Option<PathBuf>,
    grace: Duration,
    teller: Teller,
    /// The runs that this process is at, and what stops them.
    at: HashMap<RunId, (Arc<RunRecord>, Gate)>,
    /// Detached runs that are looked after here.
    cared: HashSet<RunId>,
    work: JoinSet<(Arc<RunRecord>, Outcome)>,
    looks: Looks,
    /// The runs that wait, most likely for others.
    waiting: BTreeSet<RunId>,
    next_tick: Instant,
    next_due: Option<Timestamp>,
    troubles: (mpsc::Sender<Trouble>, mpsc::Receiver<Trouble>),
    poster: Poster,
    /// The runs whose keys are not there yet.
    waits: Waits,
    elsewhere: bool,
    /// The jobs whose files were removed, until that is written down.
    gone: BTreeSet<JobName>,
    /// Up to when nothing fires, as it was told: a clock was set back.
    silent_until: Option<Timestamp>,
    /// What the inventory file looked like when it was last read, and a look ago.
    hosts: (Mark, Mark),
    exit: Exit,
}

/// What a scheduler is made of.
pub struct Setup {
    /// Where runs live.
    pub runs: Runs<AnyStore>,
    /// The jobs.
    pub book: Book,
    /// The inventory that was named over the project's.
    pub inventory: Option<PathBuf>,
    /// How long attached tasks may go on when the scheduler is asked to go.
    pub grace: Duration,
    /// Who tells what happens.
    pub teller: Teller,
}

type Tick = Ticker<AnyStore, ProjectInventory, Arc<Jobs>>;

impl Scheduler {
    /// A scheduler that has not ticked yet. Within a runtime, for it tells people from the beginning.
    pub fn new(setup: Setup) -> Self {
        let Setup { runs, book, inventory, grace, teller } = setup;
        let hosts = ProjectInventory::new(Arc::clone(book.workspace()), inventory.clone()).file();
        let hosts = hosts.and_then(|file| mark(file.path()));
        let troubles = mpsc::channel(1024);
        let poster = Poster::start(runs.clone(), Workspace::clone(book.workspace()), troubles.0.clone());
        Self {
            runs,
            book,
            inventory,
            grace,
            teller,
            at: HashMap::new(),
            cared: HashSet::new(),
            work: JoinSet::new(),
            looks: Looks::default(),
            waiting: BTreeSet::new(),
            next_tick: Instant::now(),
            next_due: None,
            troubles,
            poster,
            waits: Waits::default(),
            elsewhere: false,
            gone: BTreeSet::new(),
            silent_until: None,
            hosts: (hosts, hosts),
            exit: Exit::Success,
        }
    }

    /// Ticks until it is asked to go.
    ///
    /// # Errors
    /// Where signals cannot be heard.
    pub async fn run(mut self) -> Result<Exit, Fail> {
        let mut signals = Signals::new()?;
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut files = Instant::now() + FILES_EVERY;
        loop {
            tokio::select! {
                biased;
                () = signals.heard() => break,
                Some((what, why)) = self.troubles.1.recv() => self.teller.trouble(&what, &why),
                Some(ended) = self.work.join_next() => self.ended(ended),
                Some(look) = self.looks.next() => self.looked(look, false).await,
                _ = clock.tick() => {}
            }
            if files <= Instant::now() {
                self.look_at_files();
                self.look_at_hosts().await;
                files = Instant::now() + FILES_EVERY;
            }
            if self.is_due() {
                tokio::select! {
                    biased;
                    () = signals.heard() => break,
                    // A tick that is cut off is taken up by the next, of whoever makes it.
                    () = self.tick() => {}
                }
            }
        }
        let is_clean = self.leave(&mut signals).await;
        self.post(&mut signals).await;
        tokio::select! {
            biased;
            () = signals.heard() => {}
            _ = self.teller.finish() => {}
        }
        Ok(if is_clean { Exit::Success } else { Exit::Interrupted })
    }

    /// Tells people what is left to tell, unless it is asked once more to go.
    async fn post(&mut self, signals: &mut Signals) {
        tokio::select! {
            biased;
            () = signals.heard() => {}
            () = self.poster.finish() => {}
        }
        while let Ok((what, why)) = self.troubles.1.try_recv() {
            self.teller.trouble(&what, &why);
        }
    }

    fn ticker(&self) -> (Tick, Arc<Jobs>) {
        let jobs = Arc::clone(self.book.jobs());
        let firer = Firer {
            runs: self.runs.clone(),
            scripts: Arc::clone(&jobs),
            actor: actor(),
            carrier: CarriedBy::Scheduler,
            driven: self.at.keys().cloned().collect(),
        };
        let inventory = ProjectInventory::new(Arc::clone(self.book.workspace()), self.inventory.clone());
        (Ticker { firer, inventory, patience: SELECT_WITHIN, clock: Clock::System }, jobs)
    }

    fn is_due(&self) -> bool {
        self.next_tick <= Instant::now() || self.next_due.is_some_and(|due| due <= Clock::System.now())
    }

    /// Fires what is due, and begins to look at what is unfinished.
    async fn tick(&mut self) {
        let (ticker, jobs) = self.ticker();
        self.teller.make_room(jobs.scheduled.iter().map(|it| &it.job.name));
        let at = Clock::System.now();
        self.next_tick = Instant::now() + TICK_EVERY;
        let found = async {
            cursor::forget(&self.runs, &self.gone).await?;
            ticker.tick(&jobs.scheduled, at).await
        };
        match found.await {
            Ok(found) => {
                self.gone.clear();
                self.teller.well(STORE);
                self.take_in(ticker, found).await;
            }
            Err(error) => {
                self.unavailable(error);
                self.tick_within(TICK_WHILE_WAITING);
            }
        }
        self.next_due = next_due(&jobs, at);
    }

    fn tick_within(&mut self, within: Duration) {
        self.next_tick = self.next_tick.min(Instant::now() + within);
    }

    fn unavailable(&mut self, error: StoreError) {
        self.exit = self.exit.min(Exit::Unavailable);
        self.teller.trouble(STORE, &Fail::from(error).text());
    }

    /// Tells what has fired, and begins to look at what is unfinished.
    async fn take_in(&mut self, ticker: Tick, found: Ticked) {
        self.tell_silence(found.silent_until);
        let mut told = HashSet::new();
        for fired in found.fired {
            match fired {
                Fired::Run(run) => self.teller.fired(&run, run.time().parse().unwrap_or_else(|_| Clock::System.now())),
                Fired::Skipped(run, _) => {
                    self.tell_skipped(&run).await;
                    told.insert(run);
                }
            }
        }
        for (what, why) in &found.troubles {
            self.in_trouble(what, why);
        }
        let active: HashSet<&RunId> = found.active.iter().collect();
        self.waiting.retain(|run| active.contains(run));
        self.waits.keep(&active);
        self.teller.forget_others(&active);
        self.look(ticker, found.active.into_iter().filter(|run| !told.contains(run)).collect());
    }

    /// Begins to look at those of `runs` that nothing here is at.
    fn look(&mut self, ticker: Tick, mut runs: Vec<RunId>) {
        runs.retain(|run| !self.at.contains_key(run) && !self.cared.contains(run));
        self.looks.begin(ticker, runs);
    }

    /// Goes on with a run as a look has found it.
    async fn looked(&mut self, (run, found): Look, once: bool) {
        self.waiting.remove(&run);
        match found {
            Ok(None) => {}
            Ok(Some(Standing::Finished(record, verdict))) => self.finished(&record, &verdict),
            Ok(Some(Standing::Ready(started))) => self.carry(started),
            Ok(Some(Standing::Detached(record))) => self.care(record, once),
            Ok(Some(Standing::Driven)) => {
                self.tick_within(TICK_WHILE_WAITING);
                self.note_elsewhere(&run).await;
            }
            Ok(Some(Standing::Waiting(why))) => self.wait(run, &why),
            Ok(Some(Standing::Unselected(why))) => {
                self.exit = self.exit.min(Exit::Unavailable);
                self.wait(run, &why);
            }
            Err(why) => self.in_trouble(run.as_str(), &why),
        }
    }

    fn wait(&mut self, run: RunId, why: &str) {
        self.tick_within(TICK_WHILE_WAITING);
        self.teller.waiting(&run, why);
        self.waiting.insert(run);
    }

    fn in_trouble(&mut self, what: &str, why: &str) {
        self.exit = self.exit.min(Exit::Unavailable);
        self.teller.trouble(what, why);
        self.tick_within(TICK_WHILE_WAITING);
    }

    /// Says once that nothing fires for a while, for a clock that was ahead of this one has decided it all.
    fn tell_silence(&mut self, until: Option<Timestamp>) {
        if let Some(until) = until.filter(|_| self.silent_until.is_none()) {
            self.teller.note(&format!(
                "warning: the clock was set back, or another scheduler's is ahead: nothing fires until {}",
                instant(until)
            ));
        }
        self.silent_until = until;
    }

    fn carry(&mut self, started: Started) {
        let run = Arc::clone(&started.run);
        let gate = Gate::new(started.plan.max_concurrency, started.plan.max_errors);
        self.teller.started(&run, started.plan.total());
        self.poster.wake();
        self.at.insert(run.run.clone(), (Arc::clone(&run), gate.clone()));
        let carrier = self.carrier();
        self.work.spawn(async move {
            let outcome = AssertUnwindSafe(carrier.carry(&started, &gate)).catch_unwind().await;
            (run, outcome.unwrap_or_else(|_| Outcome::Broken(FAULT.to_owned())))
        });
    }

    fn care(&mut self, run: Arc<RunRecord>, once: bool) {
        if self.cared.insert(run.run.clone()) {
            let carrier = self.carrier();
            self.work.spawn(async move {
                let looked = AssertUnwindSafe(carrier.look_after(&run, once)).catch_unwind().await;
                (run, looked.unwrap_or_else(|_| Outcome::Broken(FAULT.to_owned())))
            });
        }
        self.tick_within(TICK_WHILE_WAITING);
    }

    fn carrier(&self) -> Carrier {
        let (workspace, troubles) = (Arc::clone(self.book.workspace()), self.troubles.0.clone());
        Carrier { runs: self.runs.clone(), workspace, troubles, waits: self.waits.clone() }
    }

    /// Takes note of how far a run has come here.
    fn ended(&mut self, ended: Result<(Arc<RunRecord>, Outcome), tokio::task::JoinError>) {
        let (run, outcome) = match ended {
            Ok(ended) => ended,
            // A fault of ours: whoever ticks next takes the run up.
            Err(error) => return self.teller.trouble("a run", &error.to_string()),
        };
        let was_cared_for = self.cared.remove(&run.run);
        self.at.remove(&run.run);
        self.tick_within(if self.waiting.is_empty() { TICK_AFTER_END } else { Duration::ZERO });
        match outcome {
            Outcome::Finished(verdict) => self.finished(&run, &verdict),
            Outcome::Detached(_) if was_cared_for => {}
            Outcome::Detached(counts) => {
                self.exit = self.exit.min(verdict::exit_of_released(&counts));
                self.teller.released(&run, counts, "detached");
            }
            Outcome::Left(counts) => self.teller.released(&run, counts, "left to the next scheduler"),
            Outcome::Waiting(why) => {
                self.exit = self.exit.min(Exit::Usage);
                self.teller.waiting(&run.run, &why);
                self.next_tick = Instant::now() + TICK_WHILE_WAITING;
            }
            Outcome::Elsewhere => self.tick_within(TICK_WHILE_WAITING),
            Outcome::Broken(why) => {
                self.exit = self.exit.min(Exit::Unavailable);
                self.teller.trouble(run.run.as_str(), &why);
                self.next_tick = Instant::now() + TICK_WHILE_WAITING;
            }
        }
    }

    fn finished(&mut self, run: &RunRecord, verdict: &Verdict) {
        self.poster.wake();
        // What somebody has started by hand is carried, and answered for there.
        if run.scheduled_for.is_some() {
            self.exit = self.exit.min(verdict::exit(verdict.state, verdict.reason.as_deref(), &verdict.counts));
        }
        self.teller.well(run.run.as_str());
        self.teller.finished(run, verdict);
    }

    async fn tell_skipped(&mut self, run: &RunId) {
        let found = async { Ok::<_, StoreError>((self.runs.run(run).await?, self.runs.verdict(run).await?)) }.await;
        match found {
            Ok((Some(record), Some(verdict))) => {
                self.poster.wake();
                self.teller.finished(&record, &verdict);
            }
            // It is told when the next tick finds it.
            Ok(_) => {}
            Err(error) => self.unavailable(error),
        }
    }

    /// Says once that another scheduler is at work: leases keep both from driving one run.
    async fn note_elsewhere(&mut self, run: &RunId) {
        if self.elsewhere {
            return;
        }
        if let Ok(Some(record)) = self.runs.run(run).await
            && record.carrier == CarriedBy::Scheduler
        {
            self.elsewhere = true;
            self.teller.note(&format!(
                "another scheduler is at work on this store: it drives run `{run}`; nothing is run twice by that"
            ));
        }
    }

    fn look_at_files(&mut self) {
        let News { changed, wrong, notes, gone } = self.book.look(false);
        self.gone.extend(gone);
        self.gone.retain(|job| !self.book.knows(job));
        for text in wrong {
            self.teller.note(&text);
        }
        for text in notes {
            self.teller.remark(&text);
        }
        if changed {
            // What is new begins now, and not when its first firing would be due.
            self.tick_within(Duration::ZERO);
        }
    }

    /// Says what is wrong with the inventory file when it has changed: it is read anew for every run.
    async fn look_at_hosts(&mut self) {
        let inventory = ProjectInventory::new(Arc::clone(self.book.workspace()), self.inventory.clone());
        let Some(file) = inventory.file() else { return };
        let now = mark(file.path());
        let (read, seen) = self.hosts;
        self.hosts.1 = now;
        if now == read || now != seen {
            return;
        }
        self.hosts.0 = now;
        match file.instances(&[]).await {
            Ok(_) => self.teller.remark(&format!("`{}` has changed", file.shown())),
            Err(error) => self.teller.note(&Fail::from(error).told()),
        }
        // Some run may have waited for it.
        self.tick_within(Duration::ZERO);
    }
}

/// What is said where the program itself is at fault.
const FAULT: &str = "a fault of sshjob ended what was at it; it is looked at again";

/// What the store is called where it is told of.
const STORE: &str = "the store";

/// When the next firing of `jobs` after `now` is due, if that is before the next tick.
fn next_due(jobs: &Jobs, now: Timestamp) -> Option<Timestamp> {
    let until = now.checked_add(SignedDuration::try_from(TICK_EVERY).ok()?).ok()?;
    let next = jobs.scheduled.iter().filter_map(|it| it.calendar.between(now, until, 1).first().map(|it| it.due));
    next.min()
}
