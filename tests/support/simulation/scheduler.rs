//! Schedulers as processes: each ticks, drives and tells until it dies or leaves, and then there is another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::id::RunId;
use sshjob::domain::job::Notify;
use sshjob::domain::job::notify::Channel;
use sshjob::domain::notice::Notice;
use sshjob::domain::run::Carrier;
use sshjob::engine::clock::Clock;
use sshjob::engine::drive::drive;
use sshjob::engine::fire::{Firer, Scheduled};
use sshjob::engine::gate::{Gate, Stop};
use sshjob::engine::looks::Looks;
use sshjob::engine::notify::deliver;
use sshjob::engine::records::Runs;
use sshjob::engine::start::Started;
use sshjob::engine::tick::{Look, SELECT_WITHIN, Standing, Ticker};
use sshjob::engine::worker::Worker;
use sshjob::port::{Notifier, NotifyError};
use tokio::sync::{Notify as Signal, mpsc};

use super::fleet::SimFleet;
use super::jobs::{Edited, read};
use super::store::SimStore;
use super::{Process, Told, World};

/// A scheduler's process.
#[derive(Clone)]
struct Scheduler {
    process: Process,
    clock: Clock,
    jobs: Arc<Vec<Scheduled>>,
    driving: Arc<Mutex<BTreeMap<RunId, Gate>>>,
}

impl Scheduler {
    fn runs(&self) -> Runs<SimStore> {
        Runs::new(SimStore(self.process.clone()))
    }

    fn ticker(&self) -> Ticker<SimStore, SimFleet, SimFleet> {
        let fleet = SimFleet(self.process.clone());
        let firer = Firer {
            runs: self.runs(),
            scripts: fleet.clone(),
            actor: "simulation".to_owned(),
            carrier: Carrier::Scheduler,
            // Whoever is alive here drives its runs under leases, as others see them.
            driven: BTreeSet::new(),
        };
        Ticker { firer, inventory: fleet, patience: SELECT_WITHIN, clock: self.clock }
    }

    async fn live(self) {
        let world = &self.process.world;
        let mut looks = Looks::default();
        loop {
            let rest = if world.state().is_calm { 60_000 } else { 70_000 };
            {
                let resting = world.pause(rest);
                tokio::pin!(resting);
                loop {
                    // What was looked at is gone on with as it comes: no tick waits for that.
                    tokio::select! {
                        biased;
                        Some(look) = looks.next() => self.go_on(look).await,
                        () = &mut resting => break,
                    }
                }
            }
            self.process.live_on().await;
            let (is_late, is_twice, is_dropped) = {
                let mut state = world.state();
                let mut strikes = |percent: usize, name: &str| state.strikes(percent * 10, || name.to_owned());
                (strikes(8, "a tick was late"), strikes(8, "a tick came twice"), strikes(8, "a tick was dropped"))
            };
            if is_dropped {
                continue;
            }
            self.process.begin_tick();
            let now = self.clock.now();
            let at = if is_late { now - SignedDuration::from_secs(150) } else { now };
            let at = at.min(world.state().fires_until);
            let again = async { if is_twice { self.tick(at).await } else { Vec::new() } };
            let (active, same) = tokio::join!(self.tick(at), again);
            looks.begin(self.ticker(), active);
            looks.begin(self.ticker(), same);
        }
    }

    async fn tick(&self, at: Timestamp) -> Vec<RunId> {
        self.ticker().tick(&self.jobs, at).await.map(|ticked| ticked.active).unwrap_or_default()
    }

    async fn go_on(&self, (run, found): Look) {
        match found {
            Ok(Some(Standing::Ready(started))) => {
                let gate = Gate::new(started.plan.max_concurrency, started.plan.max_errors);
                let mut driving = self.driving.lock().unwrap();
                if let std::collections::btree_map::Entry::Vacant(free) = driving.entry(run) {
                    free.insert(gate.clone());
                    tokio::spawn(self.drive(started, gate));
                }
            }
            Ok(Some(Standing::Detached(record))) => {
                let runs = self.runs();
                let control = runs.control(&run).await.ok().flatten();
                let is_cancelled = control.is_some_and(|(control, _)| control.cancelled);
                SimFleet(self.process.clone()).collect(&runs, &record, is_cancelled).await;
            }
            Ok(
                None | Some(Standing::Finished(..) | Standing::Driven | Standing::Waiting(_) | Standing::Unselected(_)),
            )
            | Err(_) => {}
        }
    }

    fn drive(&self, started: Started, gate: Gate) -> impl Future<Output = ()> + Send + 'static {
        let (events, mut heard) = mpsc::channel(64);
        let worker = Worker {
            runs: self.runs(),
            clock: self.clock,
            events,
            access: SimFleet(self.process.clone()),
            secrets: Arc::default(),
            gate,
            batch_ended: Arc::new(Signal::new()),
        };
        let driving = Arc::clone(&self.driving);
        async move {
            let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
            let _ = drive(&worker, &started).await;
            drop(worker);
            let _ = listening.await;
            driving.lock().unwrap().remove(&started.run.run);
        }
    }

    /// Tells people what there is to tell, again and again.
    async fn tell(self) {
        loop {
            self.process.world.pause(40_000).await;
            self.process.live_on().await;
            let _ = deliver(&self.runs(), &Post(self.process.clone()), self.clock.now()).await;
        }
    }

    /// Goes as one does that is asked to.
    async fn leave(&self) {
        let gates = || self.driving.lock().unwrap().values().cloned().collect::<Vec<_>>();
        for gate in gates() {
            gate.close(Stop::Leaving);
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        for gate in gates() {
            gate.end(Stop::Leaving);
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}

/// People's mailboxes, as one process reaches them.
pub(crate) struct Post(pub(crate) Process);

impl Notifier for Post {
    async fn send(&self, notice: &Notice, _rule: &Notify, channel: Channel) -> Result<(), NotifyError> {
        let Self(process) = self;
        let faults = process.faults();
        process.live_on().await;
        process.world.pause(300).await;
        process.live_on().await;
        let dies = {
            let mut state = process.world.state();
            if state.strikes(50, || "a notifier was down".to_owned()) {
                return Err(NotifyError("it is down".to_owned()));
            }
            let told = Told { channel, is_end: notice.state.is_final(), process: process.clone(), faults };
            state.told.entry(notice.run.clone()).or_default().push(told);
            state.strikes(20, || "died after telling".to_owned())
        };
        if dies {
            process.kill();
            process.live_on().await;
        }
        Ok(())
    }
}

/// One scheduler after the other: where one is gone the next is started.
pub(crate) async fn keep_scheduling(world: Arc<World>, jobs: Arc<Vec<Edited>>) {
    loop {
        let (known, ahead) = {
            let mut state = world.state();
            let skew = i64::try_from(state.rng.below(4_000)).unwrap() - 2_000;
            let hour = if state.strikes(30, || "a clock was an hour ahead".to_owned()) { 3_600 } else { 0 };
            let days = if state.strikes(4, || "a clock was days ahead".to_owned()) {
                3 * 86_400
            } else if state.strikes(4, || "a clock was days behind".to_owned()) {
                -3 * 86_400
            } else {
                0
            };
            (read(&jobs, &mut state), SignedDuration::from_millis(skew) + SignedDuration::from_secs(hour + days))
        };
        let process = Process { ahead, ..Process::new(&world) };
        let knows_all = known.len() == jobs.len();
        let scheduler = Scheduler {
            process: process.clone(),
            clock: world.clock(ahead),
            jobs: Arc::new(known),
            driving: Arc::default(),
        };
        let living = [tokio::spawn(scheduler.clone().live()), tokio::spawn(scheduler.clone().tell())];
        let most = if process.is_mad() { 120_000 } else { 600_000 };
        let life = Duration::from_millis(u64::try_from(world.state().rng.below(most)).unwrap());
        tokio::select! {
            biased;
            () = process.death() => {}
            () = tokio::time::sleep(life) => {
                let is_calm = world.state().is_calm;
                if is_calm && knows_all && ahead.abs().as_secs() < 60 {
                    process.death().await;
                }
                living[0].abort();
                let leaves = world.state().strikes(300, || "left".to_owned());
                if leaves {
                    scheduler.leave().await;
                } else {
                    world.state().hit("died at any moment".to_owned());
                }
                process.kill();
            }
        }
        living.iter().for_each(tokio::task::JoinHandle::abort);
        world.pause(20_000).await;
    }
}
