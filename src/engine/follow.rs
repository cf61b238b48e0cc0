//! Detached jobs, followed: every host is asked at its own pace, until none has anything left to tell.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use super::collect::Collector;
use super::places::Places;
use super::visit::{Call, Errand};
use super::worker::WorkError;
use crate::domain::run::{RunRecord, Target};
use crate::domain::task::{TaskRecord, TaskState};
use crate::port::Store;

/// How soon a host is asked again that has told everything; later, the longer it has had nothing new to tell.
const SOONEST: Duration = Duration::from_millis(500);

/// But no later than this, unless there are too many of them.
const LATEST: Duration = Duration::from_secs(5);

/// Between one host and the next there is at least this much time, so that many cost no more than some.
const BETWEEN_HOSTS: Duration = Duration::from_millis(10);

/// A host that does not answer is asked again after this, then after twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// But no later than this.
const LAST_RETRY: Duration = Duration::from_mins(1);

/// How many connections are kept from one look to the next; the hosts beyond are connected to each time.
const KEPT: usize = 128;

/// How often the store is looked at for tasks that have started since.
const LOOK_FOR_STARTS_EVERY: Duration = Duration::from_secs(1);

/// Until when a host is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Until all that it has to tell by now is stored, or it does not answer.
    CaughtUp,
    /// Until its task has ended.
    Over,
}

/// What the hosts that are followed share.
struct Desk<F> {
    places: Places,
    kept: Arc<Semaphore>,
    /// How many there are.
    hosts: AtomicU32,
    until: Until,
    /// Hears why a host did not answer.
    complain: F,
}

impl<F: Fn(&Target, &str)> Desk<F> {
    fn new(until: Until, complain: F) -> Self {
        let kept = Arc::new(Semaphore::new(KEPT));
        Self { places: Places::default(), kept, hosts: AtomicU32::new(0), until, complain }
    }

    /// Asks one host for as long as it is followed.
    async fn follow<S: Store>(&self, mut call: Call<'_, S>) {
        self.hosts.fetch_add(1, Ordering::Relaxed);
        let (mut failures, mut told_at) = (0, Instant::now());
        loop {
            let before = told(&call.record);
            // In a box: what a visit takes is not kept for every host that waits for its next.
            let visit = call.visit(Errand::Look, Some(&self.kept)).boxed();
            let pause = match self.places.attend(failures > 0, visit).await {
                Ok(_) if call.record.state.is_final() => break,
                Ok(more) => {
                    failures = 0;
                    if told(&call.record) != before {
                        told_at = Instant::now();
                    }
                    if more {
                        continue;
                    }
                    self.pause(told_at.elapsed())
                }
                Err(why) => {
                    (self.complain)(&call.target, &why);
                    failures += 1;
                    retry_after(failures)
                }
            };
            if self.until == Until::CaughtUp {
                break;
            }
            sleep(pause).await;
        }
        call.hang_up().await;
        self.hosts.fetch_sub(1, Ordering::Relaxed);
    }

    /// How long to leave a host alone that has had nothing new to tell for so long.
    fn pause(&self, quiet: Duration) -> Duration {
        let soonest = SOONEST.max(BETWEEN_HOSTS * self.hosts.load(Ordering::Relaxed));
        (quiet / 4).clamp(soonest, LATEST.max(soonest))
    }
}

/// How much is known of the output.
const fn told(record: &TaskRecord) -> (u64, u64) {
    (record.stdout_bytes, record.stderr_bytes)
}

/// How long to leave a host alone that has not answered so many times.
fn retry_after(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_RETRY)
}

impl<S: Store> Collector<S> {
    /// Follows every task of `run`, each at the pace of its host, until the run has its verdict; also those that are
    /// still to start. `complain` hears which host did not answer, and why, every time.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn follow(&self, run: &RunRecord, complain: impl Fn(&Target, &str)) -> Result<(), WorkError> {
        let desk = Desk::new(Until::Over, complain);
        let mut notes = self.notes(run).await?;
        while notes.is_empty() {
            if self.settle(run).await? {
                return Ok(());
            }
            sleep(LOOK_FOR_STARTS_EVERY).await;
            notes = self.notes(run).await?;
        }
        let (mut known, mut hosts) = (HashSet::new(), FuturesUnordered::new());
        loop {
            let mut waiting = false;
            for notes in &notes {
                for (target, record) in self.open(run, notes.n).await? {
                    waiting |= record.state != TaskState::Running;
                    if record.state == TaskState::Running && known.insert(target.instance.clone()) {
                        hosts.push(desk.follow(Call::new(self, run, notes, target, record)));
                    }
                }
            }
            if hosts.is_empty() && self.settle(run).await? {
                return Ok(());
            }
            let next = Instant::now() + LOOK_FOR_STARTS_EVERY;
            if hosts.is_empty() {
                sleep_until(next).await;
            }
            let over = async { while hosts.next().await.is_some() {} };
            tokio::select! {
                () = over => {}
                () = sleep_until(next), if waiting => {}
            }
        }
    }

    /// Stores all that the hosts of `run` have to tell by now, however much that is; a host that does not answer is not
    /// waited for. Where nothing of it runs any more, the run gets its verdict.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn catch_up(&self, run: &RunRecord, complain: impl Fn(&Target, &str)) -> Result<(), WorkError> {
        let desk = Desk::new(Until::CaughtUp, complain);
        let notes = self.notes(run).await?;
        let mut hosts = FuturesUnordered::new();
        for notes in &notes {
            let open = self.open(run, notes.n).await?;
            let running = open.into_iter().filter(|(_, record)| record.state == TaskState::Running);
            hosts.extend(running.map(|(target, record)| desk.follow(Call::new(self, run, notes, target, record))));
        }
        hosts.collect::<()>().await;
        self.settle(run).await.map(|_| ())
    }
}
