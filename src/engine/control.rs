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
    let key = RunKeys::new(run).control();
    for _ in 0..TRIES {
        let written = match runs.control(run).await? {
            Some((control, _)) if control.cancelled => return Ok(()),
            Some((control, version)) => {
                let control = Control { cancelled: true, actor: actor.to_owned(), ..control };
                runs.swap(&key, &version, &control).await?
            }
            None => {
                let control = Control { paused: false, cancelled: true, actor: actor.to_owned() };
                runs.create(&key, &control).await?
            }
        };
        if let Written::Done(_) = written {
            return Ok(());
        }
    }
    Err(damaged(&key, format!("it was changed {TRIES} times while it was being written")))
}

/// Looks, for as long as it is polled, at what was asked of `run`, and has the gate obey.
pub(super) async fn obey<S: Store>(runs: &Runs<S>, run: &RunId, gate: &Gate) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match runs.control(run).await {
            Ok(Some((control, _))) if control.cancelled => {
                gate.end(Stop::Cancelled);
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%run, %error, "what was asked of the run is not known"),
        }
    }
}
