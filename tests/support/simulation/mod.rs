//! A world in which schedulers, hosts and clocks do what a seed says: the engine in it is the real one.
//!
//! Time is tokio's paused time: it jumps from one thing that happens to the next, so that hours take milliseconds.

pub(crate) mod check;
pub(crate) mod fleet;
pub(crate) mod functions;
pub(crate) mod jobs;
pub(crate) mod people;
pub(crate) mod reach;
pub(crate) mod rng;
pub(crate) mod rollout;
pub(crate) mod scheduler;
pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::cursor::Cursor;
use sshjob::domain::firing::{Decided, JobState};
use sshjob::domain::id::{InstanceId, JobName, RunId};
use sshjob::domain::job::notify::Channel;
use sshjob::domain::run::{Carrier, Outcomes};
use sshjob::engine::clock::{Clock, Simulated};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::rng::Rng;
use self::store::Step;

/// Whether a single world is looked at.
static TELLS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("SSHJOB_SEED").is_some());

/// Everything that is, and everything that has happened.
pub(crate) struct World {
    pub(crate) state: Mutex<State>,
    epoch: Timestamp,
    since: Instant,
}

/// What changes.
pub(crate) struct State {
    pub(crate) rng: Rng,
    /// Whether nothing goes wrong any more.
    pub(crate) is_calm: bool,
    /// Up to when jobs fire.
    pub(crate) fires_until: Timestamp,
    /// Whether every record of a task is looked at: that is slow, and some worlds are enough.
    pub(crate) watches_tasks: bool,
    /// Who carries runs.
    pub(crate) carrier: Carrier,
    /// Since when runs are paused.
    pub(crate) paused: BTreeMap<RunId, Instant>,
    /// When each task that did not succeed was written down to have ended, where that is watched.
    pub(crate) errors: BTreeMap<RunId, Vec<Timestamp>>,
    pub(crate) objects: BTreeMap<String, (Vec<u8>, u64)>,
    pub(crate) last_version: u64,
    pub(crate) hosts: Vec<Host>,
    /// What the hosts themselves know: every start, and how it ended.
    pub(crate) log: Vec<Start>,
    /// What became of the firings of each job, as it was written last.
    pub(crate) job_states: BTreeMap<JobName, JobState>,
    /// Every decision that was ever written, in order.
    pub(crate) decisions: BTreeMap<JobName, Vec<Decision>>,
    /// Since when each job is known.
    pub(crate) known_since: BTreeMap<JobName, Timestamp>,
    /// What was stored of runs when they were pruned.
    pub(crate) pruned: BTreeMap<String, Vec<u8>>,
    /// The runs that were claimed again after they were pruned: by somebody who had stalled in between.
    pub(crate) ghosts: BTreeSet<RunId>,
    /// What people were told of each run.
    pub(crate) told: BTreeMap<RunId, Vec<Told>>,
    /// How many runs people have asked for.
    pub(crate) asked: usize,
    /// The outcomes of each batch as they were written last.
    pub(crate) outcomes: BTreeMap<String, Outcomes>,
    /// When each verdict was written.
    pub(crate) verdicts: BTreeMap<RunId, Timestamp>,
    /// What went wrong, and how often.
    pub(crate) faults: BTreeMap<String, u64>,
    /// What was written, and how often.
    pub(crate) steps: BTreeMap<Step, u64>,
    /// What must never be.
    pub(crate) violations: Vec<String>,
}

/// A decision, and by whom.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) decided: Decided,
    /// Whether no other run of the job was active.
    pub(crate) is_alone: bool,
    /// Whether a scheduler wrote it whose clock is wrong by days.
    pub(crate) is_mad: bool,
    /// When the tick began that wrote it, and what its clock showed when it was written.
    pub(crate) since: Timestamp,
    pub(crate) now: Timestamp,
}

/// A message that arrived.
pub(crate) struct Told {
    pub(crate) channel: Channel,
    /// Whether it tells of the end of its run.
    pub(crate) is_end: bool,
    /// Who sent it.
    pub(crate) process: Process,
    /// What had gone wrong in that process before.
    pub(crate) faults: u64,
}

/// A host.
pub(crate) struct Host {
    pub(crate) id: InstanceId,
    pub(crate) group: usize,
    /// Whether the inventory lists it.
    pub(crate) is_listed: bool,
    /// Whether it answers.
    pub(crate) is_up: bool,
    /// Whether it refuses our key.
    pub(crate) refuses: bool,
}

/// A script that began on a host.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) run: RunId,
    pub(crate) instance: InstanceId,
    pub(crate) attempt: u32,
    pub(crate) at: Timestamp,
    /// When it ends by itself.
    pub(crate) ends: Timestamp,
    pub(crate) code: u32,
}

impl World {
    pub(crate) fn new(seed: u64, epoch: Timestamp, hosts: usize) -> Arc<Self> {
        let mut rng = Rng::new(seed);
        let hosts = (0..hosts).map(|n| Host {
            id: format!("i-{n:03}").parse().unwrap(),
            group: rng.below(4),
            is_listed: rng.chance(90),
            is_up: rng.chance(95),
            refuses: rng.chance(3),
        });
        let hosts = hosts.collect();
        let state = State {
            rng,
            is_calm: false,
            fires_until: Timestamp::MAX,
            watches_tasks: seed.is_multiple_of(4) || seed % 16 == 1,
            carrier: if seed % 4 == 1 { Carrier::Functions } else { Carrier::Scheduler },
            paused: BTreeMap::new(),
            errors: BTreeMap::new(),
            objects: BTreeMap::new(),
            last_version: 0,
            hosts,
            log: Vec::new(),
            job_states: BTreeMap::new(),
            decisions: BTreeMap::new(),
            known_since: BTreeMap::new(),
            pruned: BTreeMap::new(),
            ghosts: BTreeSet::new(),
            told: BTreeMap::new(),
            asked: 0,
            outcomes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            faults: BTreeMap::new(),
            steps: BTreeMap::new(),
            violations: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), epoch, since: Instant::now() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Has everything be well from now on, and nothing fire any more.
    pub(crate) fn calm_down(&self) {
        let now = self.now();
        let mut state = self.state();
        (state.is_calm, state.fires_until) = (true, now);
    }

    /// A clock that is ahead of true time by so much.
    pub(crate) fn clock(&self, ahead: SignedDuration) -> Clock {
        Clock::Simulated(Simulated { epoch: self.epoch, since: self.since, ahead })
    }

    /// True time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock(SignedDuration::ZERO).now()
    }

    /// Whether only a clock that is wrong by days can have told this time.
    pub(crate) fn is_days_ahead(&self, time: Timestamp) -> bool {
        time.duration_since(self.now()) > SignedDuration::from_hours(26)
    }

    /// Tells what happens, where a single world is looked at.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if *TELLS {
            eprintln!("{} {}", self.now(), what());
        }
    }

    /// Lets up to `most` milliseconds pass.
    pub(crate) async fn pause(&self, most: u64) {
        let millis = self.state().rng.below(usize::try_from(most).unwrap());
        tokio::time::sleep(Duration::from_millis(u64::try_from(millis).unwrap())).await;
    }
}

impl State {
    /// Whether something goes wrong here, with this chance in a thousand; counts it by its name.
    pub(crate) fn strikes(&mut self, per_mille: usize, name: impl FnOnce() -> String) -> bool {
        let strikes = !self.is_calm && self.rng.below(1000) < per_mille;
        if strikes {
            self.hit(name());
        }
        strikes
    }

    /// The runs that are marked as unfinished.
    pub(crate) fn active(&self) -> impl Iterator<Item = RunId> {
        let keys = self.objects.range("active/".to_owned()..).map(|(key, _)| key);
        keys.take_while(|key| key.starts_with("active/")).map(|key| key.rsplit('/').next().unwrap().parse().unwrap())
    }

    /// What was stored when its run was pruned, or is.
    pub(crate) fn stored(&self, key: &str) -> Option<&[u8]> {
        let pruned = self.pruned.get(key);
        pruned.or_else(|| self.objects.get(key).map(|(bytes, _)| bytes)).map(Vec::as_slice)
    }

    /// The runs of `job` that are claimed or were, in the order of their times.
    pub(crate) fn claimed(&self, job: &JobName) -> BTreeSet<RunId> {
        let prefix = format!("runs/{job}/");
        let is_claim = |key: &&String| key.starts_with(&prefix) && key.ends_with("/run.json");
        let keys = self.objects.keys().filter(is_claim).chain(self.pruned.keys().filter(is_claim));
        keys.map(|key| key.split('/').nth(2).unwrap().parse().unwrap()).collect()
    }

    /// Up to when firings are decided.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.stored("state/cursor.json").map(|cursor| serde_json::from_slice(cursor).unwrap())
    }

    /// Whether some clock was wrong by days.
    pub(crate) fn has_mad_clock(&self) -> bool {
        self.faults.contains_key("a clock was days ahead") || self.faults.contains_key("a clock was days behind")
    }

    /// Counts something that went wrong.
    pub(crate) fn hit(&mut self, name: String) {
        if *TELLS {
            eprintln!("  {name}");
        }
        *self.faults.entry(name).or_default() += 1;
    }
}

/// Whether people asked for `run`, and it is no firing.
pub(crate) fn is_on_demand(run: &RunId) -> bool {
    run.as_str().len() > run.job().as_str().len() + 1 + run.time().len()
}

/// A process: once it is dead, nothing that it does ever returns.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) world: Arc<World>,
    /// How far its clock is ahead.
    pub(crate) ahead: SignedDuration,
    /// Whether it never stalls.
    is_steady: bool,
    alive: Arc<AtomicBool>,
    died: Arc<Notify>,
    stalled_until: Arc<Mutex<Option<Instant>>>,
    faults: Arc<AtomicU64>,
    /// When something last went wrong in it.
    last_fault: Arc<Mutex<Option<Instant>>>,
    /// Since when it makes the tick that it is at.
    ticking: Arc<Mutex<Option<Timestamp>>>,
}

impl Process {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            ahead: SignedDuration::ZERO,
            is_steady: false,
            alive: Arc::new(AtomicBool::new(true)),
            died: Arc::default(),
            stalled_until: Arc::default(),
            faults: Arc::default(),
            last_fault: Arc::default(),
            ticking: Arc::default(),
        }
    }

    /// Whether its clock is wrong by days.
    pub(crate) fn is_mad(&self) -> bool {
        self.ahead.abs() > SignedDuration::from_hours(24)
    }

    /// A process that never stalls.
    pub(crate) fn steady(world: &Arc<World>) -> Self {
        Self { is_steady: true, ..Self::new(world) }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// How many things went wrong in it.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }

    pub(crate) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::SeqCst);
        *self.last_fault.lock().unwrap() = Some(Instant::now());
    }

    /// Whether nothing has gone wrong in it since then, or shortly before.
    pub(crate) fn has_been_well_since(&self, since: Instant) -> bool {
        let stalled = self.stalled_until.lock().unwrap().is_some_and(|until| until > since);
        !stalled && self.last_fault.lock().unwrap().is_none_or(|at| at + Duration::from_secs(1) < since)
    }

    /// Begins a tick; what it decides it decides by what it finds from now on.
    pub(crate) fn begin_tick(&self) {
        *self.ticking.lock().unwrap() = Some(self.world.now());
    }

    /// Since when it makes the tick that it is at.
    pub(crate) fn ticking_since(&self) -> Timestamp {
        self.ticking.lock().unwrap().unwrap_or(Timestamp::MIN)
    }

    pub(crate) fn kill(&self) {
        self.fault();
        self.alive.store(false, Ordering::SeqCst);
        self.died.notify_waiters();
        self.died.notify_one();
    }

    /// Does nothing for a while, as a machine that sleeps.
    pub(crate) fn stall(&self, millis: usize) {
        if self.is_steady {
            return;
        }
        self.fault();
        let span = Duration::from_millis(u64::try_from(millis).unwrap());
        *self.stalled_until.lock().unwrap() = Some(Instant::now() + span);
    }

    /// Resolves when the process dies.
    pub(crate) async fn death(&self) {
        while self.is_alive() {
            self.died.notified().await;
        }
    }

    /// Never returns in a dead process, and in one that is stalled when it goes on.
    pub(crate) async fn live_on(&self) {
        loop {
            if !self.is_alive() {
                pending::<()>().await;
            }
            let stalled = *self.stalled_until.lock().unwrap();
            match stalled {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}
