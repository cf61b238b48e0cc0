//! How many tasks run at a time, and when no more are started.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::event::STOPPED_BY_ERRORS;
use crate::domain::id::InstanceId;

/// Starts are spread over this much per place: what a server needs to take one connection from its queue.
const START_SPREAD: Duration = Duration::from_micros(200);

/// But nobody waits longer than this for the sake of others.
const START_SPREAD_AT_MOST: Duration = Duration::from_millis(50);

/// Why no more tasks are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// More errors than `max_errors` allows.
    MaxErrors(u32),
    /// A canary did not succeed.
    Canary,
    /// Someone asked for it.
    Cancelled,
    /// Another process has taken over.
    Fenced,
    /// The store does not take what must be written before a task may start.
    Store(String),
    /// What it takes to reach the hosts cannot be had.
    Unequipped(String),
    /// This process goes, and another is to go on: what has not started stays as it is.
    Leaving,
    /// The time of this worker is over: what runs is ended, and what has not started is left to another.
    OutOfTime,
}

impl Stop {
    /// Why a task was skipped, in a few words.
    pub fn reason(&self) -> String {
        match self {
            Self::MaxErrors(allowed) => format!("{STOPPED_BY_ERRORS} exceeded: more than {allowed} did not succeed"),
            Self::Canary => format!("{STOPPED_BY_ERRORS} exceeded: the canary did not succeed"),
            Self::Cancelled => "cancelled before it started".to_owned(),
            Self::Fenced => "another process has taken over this run".to_owned(),
            Self::Store(why) => format!("the store is unavailable: {why}"),
            Self::Unequipped(why) => format!("nothing could be started: {why}"),
            Self::Leaving => "the scheduler is going; the next one goes on".to_owned(),
            Self::OutOfTime => "ended, for the time of its worker was over".to_owned(),
        }
    }
}

impl Stop {
    /// Why the run did not come to all of its tasks; none where its state says it already.
    pub fn of_run(&self) -> Option<String> {
        (*self != Self::Cancelled).then(|| self.reason())
    }
}

/// The gate that every task of a run passes before it starts.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    permits: Arc<Semaphore>,
    spread: Duration,
    max_errors: Option<u32>,
    errors: AtomicU32,
    stop: OnceLock<Stop>,
    /// No task is started for now.
    paused: AtomicBool,
    /// Wakes in the order of their coming those who wait for `paused` to change: a world that is simulated again is the same.
    turned: Notify,
    /// No more tasks are started.
    closed: CancellationToken,
    /// Running tasks are to be ended.
    ending: CancellationToken,
}

impl Gate {
    /// Lets `max_concurrency` tasks run at a time, and none start after more than `max_errors` errors.
    pub fn new(max_concurrency: u32, max_errors: Option<u32>) -> Self {
        let permits = usize::try_from(max_concurrency).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            inner: Arc::new(Inner {
                permits: Arc::new(Semaphore::new(permits)),
                spread: START_SPREAD.saturating_mul(max_concurrency).min(START_SPREAD_AT_MOST),
                max_errors,
                errors: AtomicU32::new(0),
                stop: OnceLock::new(),
                paused: AtomicBool::new(false),
                turned: Notify::new(),
                closed: CancellationToken::new(),
                ending: CancellationToken::new(),
            }),
        }
    }

    /// How long `instance` waits before it connects, so that a wave of tasks does not open all its connections in one
    /// instant; the same for the same instance.
    pub fn stagger(&self, instance: &InstanceId) -> Duration {
        // FNV-1a: any spread will do, and this one needs no state and no randomness.
        let hash = instance
            .as_str()
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        self.inner.spread.mul_f64(f64::from(hash) / f64::from(u32::MAX))
    }

    /// Waits for a place, and for as long as the gate is paused; `None` when no more tasks are started.
    pub async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let admitted = async {
            loop {
                let permit = Arc::clone(&self.inner.permits).acquire_owned().await.ok()?;
                if !self.is_paused() {
                    return Some(permit);
                }
                // Whoever waits here takes nobody's place.
                drop(permit);
                self.until_paused_is(false).await;
            }
        };
        tokio::select! {
            biased;
            () = self.inner.closed.cancelled() => None,
            permit = admitted => permit,
        }
    }

    /// Starts no task until it is told otherwise; those that run go on. Returns whether that is a change.
    pub fn pause(&self, paused: bool) -> bool {
        let is_change = self.inner.paused.swap(paused, Ordering::SeqCst) != paused;
        self.inner.turned.notify_waiters();
        is_change
    }

    fn is_paused(&self) -> bool {
        self.inner.paused.load(Ordering::SeqCst)
    }

    async fn until_paused_is(&self, wanted: bool) {
        loop {
            // Before the look: what turns between the two is heard.
            let turned = self.inner.turned.notified();
            if self.is_paused() == wanted {
                return;
            }
            turned.await;
        }
    }

    /// Resolves when the gate is paused.
    pub async fn paused(&self) {
        self.until_paused_is(true).await;
    }

    /// Counts a task that ended without success. Returns the reason to stop where this one is the last straw.
    pub fn count_error(&self) -> Option<Stop> {
        let errors = self.inner.errors.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let allowed = self.inner.max_errors?;
        (errors > allowed && self.close(Stop::MaxErrors(allowed))).then_some(Stop::MaxErrors(allowed))
    }

    /// Starts no more tasks. Returns whether this was the first reason to.
    pub fn close(&self, why: Stop) -> bool {
        let first = self.inner.stop.set(why).is_ok();
        self.inner.closed.cancel();
        first
    }

    /// Starts no more tasks and ends those that run. Returns whether this was the first reason to.
    pub fn end(&self, why: Stop) -> bool {
        let first = self.close(why);
        self.inner.ending.cancel();
        first
    }

    /// Why no more tasks are started, if so.
    pub fn stopped(&self) -> Option<&Stop> {
        self.inner.stop.get()
    }

    /// Whether another process is to go on with what has not started.
    pub fn is_leaving(&self) -> bool {
        matches!(self.stopped(), Some(Stop::Leaving | Stop::OutOfTime))
    }

    /// Resolves when running tasks are to be ended.
    pub async fn ending(&self) {
        self.inner.ending.cancelled().await;
    }

    /// Whether running tasks are to be ended.
    pub fn is_ending(&self) -> bool {
        self.inner.ending.is_cancelled()
    }

    /// Resolves when no more tasks are started.
    pub async fn closed(&self) {
        self.inner.closed.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn gate_that_is_paused_admits_nobody_until_it_is_resumed() {
        let gate = Gate::new(1, None);
        let first = gate.admit().await;
        assert!(gate.pause(true) && !gate.pause(true));
        drop(first);
        let mut second = Box::pin(gate.admit());
        assert!((&mut second).now_or_never().is_none());
        assert!(gate.pause(false));
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn gate_that_is_paused_closes_all_the_same() {
        let gate = Gate::new(1, None);
        gate.pause(true);
        let mut waiting = Box::pin(gate.admit());
        assert!((&mut waiting).now_or_never().is_none());
        gate.close(Stop::Cancelled);
        assert!(waiting.await.is_none());
    }
}
