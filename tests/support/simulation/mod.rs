//! A world in which schedulers, hosts and clocks do what a seed says: the engine in it is the real one.
//!
//! Time is tokio's paused time: it jumps from one thing that happens to the next, so that hours take milliseconds.

pub(crate) mod check;
pub(crate) mod fleet;
pub(crate) mod rng;
pub(crate) mod store;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::firing::Decided;
use sshjob::domain::id::{InstanceId, JobName, RunId};
use sshjob::domain::run::Outcomes;
use sshjob::engine::clock::{Clock, Simulated};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::rng::Rng;

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
    pub(crate) objects: BTreeMap<String, (Vec<u8>, u64)>,
    pub(crate) last_version: u64,
    pub(crate) hosts: Vec<Host>,
    /// What the hosts themselves know: every start, and how it ended.
    pub(crate) log: Vec<Start>,
    /// Every decision that was ever written, in order.
    pub(crate) decisions: BTreeMap<JobName, Vec<Decided>>,
    /// The outcomes of each batch as they were written last.
    pub(crate) outcomes: BTreeMap<String, Outcomes>,
    /// When each verdict was written.
    pub(crate) verdicts: BTreeMap<RunId, Timestamp>,
    /// Where the first cursor stood.
    pub(crate) first_cursor: Option<Timestamp>,
    /// What went wrong, and how often.
    pub(crate) faults: BTreeMap<String, u64>,
    /// What must never be.
    pub(crate) violations: Vec<String>,
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
            objects: BTreeMap::new(),
            last_version: 0,
            hosts,
            log: Vec::new(),
            decisions: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            first_cursor: None,
            faults: BTreeMap::new(),
            violations: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), epoch, since: Instant::now() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A clock that is ahead of true time by so much.
    pub(crate) fn clock(&self, ahead: SignedDuration) -> Clock {
        Clock::Simulated(Simulated { epoch: self.epoch, since: self.since, ahead })
    }

    /// True time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock(SignedDuration::ZERO).now()
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

    /// Counts something that went wrong.
    pub(crate) fn hit(&mut self, name: String) {
        *self.faults.entry(name).or_default() += 1;
    }
}

/// A process: once it is dead, nothing that it does ever returns.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) world: Arc<World>,
    alive: Arc<AtomicBool>,
    died: Arc<Notify>,
}

impl Process {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), alive: Arc::new(AtomicBool::new(true)), died: Arc::default() }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    pub(crate) fn kill(&self) {
        self.alive.store(false, Ordering::SeqCst);
        self.died.notify_waiters();
        self.died.notify_one();
    }

    /// Resolves when the process dies.
    pub(crate) async fn death(&self) {
        while self.is_alive() {
            self.died.notified().await;
        }
    }

    /// Never returns in a dead process.
    pub(crate) async fn live_on(&self) {
        if !self.is_alive() {
            pending::<()>().await;
        }
    }
}
