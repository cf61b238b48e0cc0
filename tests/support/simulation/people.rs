//! What people and machines do to a simulated world beside its schedulers.

use std::sync::Arc;
use std::time::Duration;

use sshjob::domain::id::RunId;
use sshjob::engine::control;
use sshjob::engine::prune::{Policy, prune};
use sshjob::engine::records::Runs;
use sshjob::engine::start::{Errand, commission};

use super::fleet::script;
use super::jobs::Edited;
use super::store::SimStore;
use super::{Process, World};

/// Hosts come and go, and are up and down.
pub(crate) async fn change_hosts(world: Arc<World>) {
    loop {
        world.pause(20_000).await;
        let mut state = world.state();
        if state.is_calm {
            return;
        }
        let count = state.hosts.len();
        let n = state.rng.below(count);
        if state.rng.below(3) == 0 {
            state.hosts[n].is_listed ^= true;
            state.hit("a host came or went".to_owned());
        } else {
            state.hosts[n].is_up ^= true;
            state.hit("a host went down or up".to_owned());
        }
    }
}

/// People cancel, pause, resume and ask for runs; at last they resume whatever is paused.
pub(crate) async fn ask(world: Arc<World>, jobs: Arc<Vec<Edited>>) {
    loop {
        world.pause(20_000).await;
        let process = Process::steady(&world);
        tokio::select! {
            biased;
            () = process.death() => {}
            () = ask_once(&process, &jobs) => {}
        }
    }
}

async fn ask_once(process: &Process, jobs: &[Edited]) {
    let (world, runs) = (&process.world, Runs::new(SimStore(process.clone())));
    let (is_calm, what, active) = {
        let mut state = world.state();
        let active: Vec<RunId> = state.active().collect();
        (state.is_calm, state.rng.below(8), active)
    };
    if is_calm {
        for run in &active {
            if runs.control(run).await.ok().flatten().is_some_and(|(control, _)| control.paused) {
                let _ = control::resume(&runs, run, "ann").await;
            }
        }
        return;
    }
    if what == 0 {
        let n = world.state().rng.below(jobs.len());
        return Box::pin(run_now(world, &jobs[n])).await;
    }
    let pick = world.state().rng.below(active.len());
    let Some(run) = active.get(pick) else { return };
    let (done, name) = match what {
        1 => (control::cancel(&runs, run, "ann").await, "a run was cancelled"),
        2 | 3 => (control::pause(&runs, run, "ann").await, "a run was paused"),
        4..=6 => (control::resume(&runs, run, "bob").await, "a run was resumed"),
        _ => return,
    };
    if done.is_ok() {
        world.state().hit(name.to_owned());
    }
}

/// Asks for a run of a job, twice at the same time, and again until it is known that it was heard.
async fn run_now(world: &Arc<World>, job: &Edited) {
    let id = {
        let mut state = world.state();
        state.hit("a run was asked for".to_owned());
        state.asked += 1;
        format!("request-{}", state.asked)
    };
    let errand = Errand {
        job: job.now.job.clone(),
        script: script(&job.now.job),
        actor: "ann".to_owned(),
        id,
        instance: None,
        retry: None,
        carrier: world.state().carrier,
    };
    loop {
        let (one, other) = (Process::steady(world), Process::steady(world));
        let ask = async |process: &Process| {
            let runs = Runs::new(SimStore(process.clone()));
            tokio::select! {
                biased;
                () = process.death() => false,
                done = commission(&runs, errand.clone(), world.now()) => done.is_ok(),
            }
        };
        let (heard, again) = tokio::join!(ask(&one), ask(&other));
        if heard || again {
            return;
        }
    }
}

/// Somebody removes old runs.
pub(crate) async fn keep_pruning(world: Arc<World>) {
    loop {
        world.pause(100_000).await;
        if world.state().is_calm {
            return;
        }
        let process = Process::new(&world);
        let keep = world.state().rng.below(3);
        let policy = Policy { older_than: Some(Duration::from_secs(30)), keep };
        let runs = Runs::new(SimStore(process.clone()));
        tokio::select! {
            biased;
            () = process.death() => {}
            _ = prune(&runs, policy, world.now(), false) => {}
        }
    }
}
