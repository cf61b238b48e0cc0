//! What people ask of a run that is under way, and how whoever drives it hears of it.

use std::time::Duration;

use super::gate::{Gate, Stop};
use super::records::{Runs, damaged};
use crate::domain::id::RunId;
use crate::domain::layout::RunKeys;
use crate::domain::run::Control;
use crate::port::{Store, StoreError, Written};

/// How often a driver looks at what was asked of its run.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often a request may be overtaken by others before that is called a fault.
const TRIES: u32 = 5;

/// Asks for `run` to end, in the name of `actor`.
///
/// # Errors
/// Where the store does not answer.
pub async fn cancel<S: Store>(runs: &Runs<S>, run: &RunId, actor: &str) -> Result<(), StoreError> {
    change(runs, run, actor, |control| Control { cancelled: true, ..control }).await
}

/// Asks for no task of `run` to be started until it is resumed, in the name of `actor`; those that run go on.
///
/// # Errors
/// Where the store does not answer.
pub async fn pause<S: Store>(runs: &Runs<S>, run: &RunId, actor: &str) -> Result<(), StoreError> {
    change(runs, run, actor, |control| Control { paused: true, ..control }).await
}

/// Takes back what [`pause`] asked for, in the name of `actor`.
///
/// # Errors
/// Where the store does not answer.
pub async fn resume<S: Store>(runs: &Runs<S>, run: &RunId, actor: &str) -> Result<(), StoreError> {
    change(runs, run, actor, |control| Control { paused: false, ..control }).await
}

/// Asks for what `asked` makes of what was asked before; nothing is written where that is the same.
async fn change<S: Store>(
    runs: &Runs<S>,
    run: &RunId,
    actor: &str,
    asked: impl Fn(Control) -> Control,
) -> Result<(), StoreError> {
    let key = RunKeys::new(run).control();
    for _ in 0..TRIES {
        let (before, version) = runs.control(run).await?.map_or_else(Default::default, |(it, at)| (it, Some(at)));
        let mut next = asked(before.clone());
        if next == before {
            return Ok(());
        }
        actor.clone_into(&mut next.actor);
        let written = match version {
            Some(version) => runs.swap(&key, &version, &next).await?,
            None => runs.create(&key, &next).await?,
        };
        if let Written::Done(_) = written {
            return Ok(());
        }
    }
    Err(damaged(&key, format!("it was changed {TRIES} times while it was being written")))
}

/// Has the gate do what was asked of `run`.
///
/// # Errors
/// Where the store does not answer.
pub(super) async fn heed<S: Store>(runs: &Runs<S>, run: &RunId, gate: &Gate) -> Result<(), StoreError> {
    let Some((control, _)) = runs.control(run).await? else { return Ok(()) };
    if gate.pause(control.paused) {
        tracing::info!(%run, paused = control.paused, by = control.actor, "heard");
    }
    if control.cancelled {
        gate.end(Stop::Cancelled);
    }
    Ok(())
}

/// Looks, for as long as it is polled, at what was asked of `run`, and has the gate obey.
pub(super) async fn obey<S: Store>(runs: &Runs<S>, run: &RunId, gate: &Gate) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(error) = heed(runs, run, gate).await {
            tracing::warn!(%run, %error, "what was asked of the run is not known");
        }
    }
}
