//! Functions as processes: a trigger for each tick, which sends orders on ways that lose them, and a worker for each order
//! that arrives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use sshjob::domain::order::{Action, Order};
use sshjob::domain::run::Carrier;
use sshjob::engine::clock::Clock;
use sshjob::engine::fanout::fan_out;
use sshjob::engine::fire::Firer;
use sshjob::engine::gate::Gate;
use sshjob::engine::looks::Looks;
use sshjob::engine::notify::deliver;
use sshjob::engine::records::Runs;
use sshjob::engine::tick::{Look, Standing, Ticker};
use sshjob::engine::worker::Worker;
use sshjob::port::{DispatchError, Dispatcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::fleet::SimFleet;
use super::jobs::{Edited, read};
use super::scheduler::Post;
use super::store::SimStore;
use super::{Process, World};

/// How long an invocation of the trigger may take.
const TRIGGER_WITHIN: Duration = Duration::from_mins(5);

/// How long after its deadline a worker is ended.
const GRACE: Duration = Duration::from_secs(2);

/// Ticks come every minute, most of them; each has a trigger of its own.
pub(crate) async fn keep_triggering(world: Arc<World>, jobs: Arc<Vec<Edited>>) {
    loop {
        let is_calm = world.state().is_calm;
        world.pause(if is_calm { 60_000 } else { 70_000 }).await;
        let count = {
            let mut state = world.state();
            let mut strikes = |name: &str| state.strikes(80, || name.to_owned());
            match (strikes("a tick was dropped"), strikes("a tick came twice")) {
                (true, _) => 0,
                (false, true) => 2,
                (false, false) => 1,
            }
        };
        for _ in 0..count {
            tokio::spawn(tick(Arc::clone(&world), Arc::clone(&jobs)));
        }
    }
}

/// A function, with a clock that is wrong by as little as theirs are.
fn invoke(world: &Arc<World>) -> (Process, Clock) {
    let skew = i64::try_from(world.state().rng.below(4_000)).unwrap() - 2_000;
    let ahead = SignedDuration::from_millis(skew);
    (Process { ahead, ..Process::new(world) }, world.clock(ahead))
}

async fn tick(world: Arc<World>, jobs: Arc<Vec<Edited>>) {
    let (process, clock) = invoke(&world);
    let known = read(&jobs, &mut world.state());
    let fleet = SimFleet(process.clone());
    let runs = Runs::new(SimStore(process.clone()));
    let firer = Firer {
        runs: runs.clone(),
        scripts: fleet.clone(),
        actor: "simulation".to_owned(),
        carrier: Carrier::Functions,
        driven: BTreeSet::new(),
    };
    let ticker = Ticker { firer, inventory: fleet, patience: TRIGGER_WITHIN.mul_f64(0.6), clock };
    let is_late = world.state().strikes(80, || "a tick was late".to_owned());
    let at = clock.now() - SignedDuration::from_secs(if is_late { 150 } else { 0 });
    let at = at.min(world.state().fires_until);
    let work = async {
        process.begin_tick();
        let Ok(found) = ticker.tick(&known, at).await else { return };
        let mut looks = Looks::default();
        looks.begin(ticker, found.active);
        while let Some(look) = looks.next().await {
            go_on(&process, &runs, clock, look).await;
        }
        let _ = deliver(&runs, &Post(process.clone()), clock.now()).await;
    };
    tokio::select! {
        biased;
        () = process.death() => {}
        () = tokio::time::sleep(TRIGGER_WITHIN) => process.kill(),
        () = work => {}
    }
}

/// Sends for the workers of a run that a look has found.
async fn go_on(process: &Process, runs: &Runs<SimStore>, clock: Clock, (run, found): Look) {
    let record = match found {
        Ok(Some(Standing::Ready(started))) => started.run,
        Ok(Some(Standing::Detached(record))) => record,
        _ => return,
    };
    if let Ok(Some(plan)) = runs.plan(&run).await {
        let _ = fan_out(runs, &Ways(process.clone()), &record, &plan, clock.now()).await;
    }
}

/// How orders reach workers.
struct Ways(Process);

impl Dispatcher for Ways {
    async fn dispatch(&self, order: Order) -> Result<(), DispatchError> {
        let Self(process) = self;
        process.live_on().await;
        process.world.pause(200).await;
        process.live_on().await;
        let world = &process.world;
        let (is_refused, arrives, dies) = {
            let mut state = world.state();
            let is_refused = state.strikes(20, || "an order was refused".to_owned());
            let is_lost = state.strikes(50, || "an order was lost".to_owned());
            let is_twice = state.strikes(80, || "an order came twice".to_owned());
            let arrives = match (is_refused || is_lost, is_twice) {
                (true, _) => 0,
                (false, true) => 2,
                (false, false) => 1,
            };
            (is_refused, arrives, state.strikes(5, || "died after an order".to_owned()))
        };
        for _ in 0..arrives {
            let is_delayed = world.state().strikes(100, || "an order was delayed".to_owned());
            let most = if is_delayed { 150_000 } else { 2_000 };
            let delay = Duration::from_millis(u64::try_from(world.state().rng.below(most)).unwrap());
            tokio::spawn(work(Arc::clone(world), order.clone(), delay));
        }
        if dies {
            process.kill();
            process.live_on().await;
        }
        if is_refused {
            let why = "TooManyRequestsException".to_owned();
            return Err(DispatchError { run: order.run, batch: order.batch, why });
        }
        Ok(())
    }
}

/// A worker, from the arrival of its order to its end.
async fn work(world: Arc<World>, order: Order, delay: Duration) {
    tokio::time::sleep(delay).await;
    let (process, clock) = invoke(&world);
    let is_short = world.state().strikes(100, || "a worker had little time".to_owned());
    let left = Duration::from_secs(if is_short { 45 } else { 900 });
    tokio::select! {
        biased;
        () = process.death() => {}
        () = tokio::time::sleep_until(Instant::now() + left + GRACE) => {
            world.state().hit("a worker was ended at its deadline".to_owned());
            process.kill();
        }
        _ = carry_out(&process, clock, &order, left) => {}
    }
}

/// Does what a worker function does with `order`.
async fn carry_out(process: &Process, clock: Clock, order: &Order, left: Duration) -> Option<()> {
    let (runs, fleet) = (Runs::new(SimStore(process.clone())), SimFleet(process.clone()));
    let deadline = clock.now() + left;
    if order.not_after < clock.now() {
        process.world.state().hit("an order came too late".to_owned());
        return None;
    }
    let run = runs.run(&order.run).await.ok()??;
    if runs.verdict(&order.run).await.ok()?.is_some() {
        return None;
    }
    let targets = runs.targets(&order.run, order.batch).await.ok()??.targets;
    if order.action != Action::Run {
        fleet.collect_batch(&runs, &run, order.batch, order.action == Action::Cancel).await;
        return None;
    }
    let tasks = runs.outcomes(&order.run, order.batch).await.ok()?.map(|(outcomes, _)| outcomes.tasks);
    let tasks = tasks.unwrap_or_default();
    if targets.iter().all(|target| tasks.get(&target.instance).is_some_and(|task| task.state.is_final())) {
        return None;
    }
    let max_errors = runs.plan(&order.run).await.ok()?.and_then(|plan| plan.max_errors);
    let (events, mut heard) = mpsc::channel(64);
    let worker = Worker {
        runs,
        clock,
        events,
        access: fleet,
        secrets: Arc::default(),
        gate: Gate::new(u32::try_from(targets.len()).unwrap(), max_errors),
        batch_ended: Arc::new(Notify::new()),
    };
    let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let done = worker.run_until(&run, order.batch, deadline).await;
    drop(worker);
    let _ = listening.await;
    done.ok()
}
