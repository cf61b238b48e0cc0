//! Takes the runs of a scheduler to their verdicts, each with what it takes to reach its hosts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::adapter::ssh::{Connector, Identities, Keyring};
use crate::adapter::store::AnyStore;
use crate::cli::access::{access, resolve_secrets};
use crate::cli::exit::Fail;
use crate::cli::keys::load_keys_unattended;
use crate::cli::post::Trouble;
use crate::cli::project::Workspace;
use crate::domain::id::RunId;
use crate::domain::plan::PLAN_WITHIN;
use crate::domain::run::{RunRecord, Verdict};
use crate::domain::task::{Counts, Tally};
use crate::engine::access::Access;
use crate::engine::clock::Clock;
use crate::engine::collect::{Collector, Round, give_up};
use crate::engine::drive::drive;
use crate::engine::gate::{Gate, Stop};
use crate::engine::history;
use crate::engine::reconcile;
use crate::engine::records::Runs;
use crate::engine::start::Started;
use crate::engine::trust::Trust;
use crate::engine::worker::{Secrets, WorkError, Worker};
use crate::port::StoreError;

/// Events of a run that wait to be passed over: a scheduler tells of runs, not of tasks.
const EVENTS: usize = 64;

/// How often the hosts of a detached run are asked at first, and at last: a short one is seen to end soon, a long one
/// costs a connection per host and minute.
const LOOK_AT_FIRST: Duration = Duration::from_secs(1);
const LOOK_AT_LAST: Duration = Duration::from_mins(1);

/// What all runs share.
#[derive(Debug, Clone)]
pub struct Carrier {
    /// Where they live.
    pub runs: Runs<AnyStore>,
    /// Where keys and secrets are named.
    pub workspace: Arc<Workspace>,
    /// Hears what goes wrong meanwhile.
    pub troubles: mpsc::Sender<Trouble>,
    /// The runs that wait for what it takes to reach their hosts.
    pub waits: Waits,
}

/// Since when runs wait for what it takes to reach their hosts: keys, an agent, secrets.
#[derive(Debug, Clone, Default)]
pub struct Waits {
    /// Since when all of them do, where this process does not live to see that: since this machine runs, for after a
    /// restart it takes a while until everything is there.
    pub since: Option<Timestamp>,
    seen: Arc<Mutex<HashMap<RunId, Timestamp>>>,
}

impl Waits {
    /// Whether `run` may wait on at `now`: as long as it may be planned, and also where it had begun before for as long as
    /// planning may take.
    fn may_wait(&self, run: &RunRecord, now: Timestamp) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let since = self.since.unwrap_or_else(|| *seen.entry(run.run.clone()).or_insert(now));
        now <= run.plan_before || now <= since.saturating_add(PLAN_WITHIN).unwrap_or(Timestamp::MAX)
    }

    /// `run` waits no more.
    fn over(&self, run: &RunId) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }

    /// Only these runs may wait: another scheduler may have ended what waited here.
    pub fn keep(&self, active: &HashSet<&RunId>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).retain(|run, _| active.contains(run));
    }
}

/// What has become of a run.
#[derive(Debug)]
pub enum Outcome {
    /// It has its verdict.
    Finished(Verdict),
    /// Its scripts run on without us.
    Detached(Counts),
    /// It was left to the next scheduler.
    Left(Counts),
    /// It cannot start yet: what it takes cannot be had.
    Waiting(String),
    /// Another process is at it.
    Elsewhere,
    /// It could not be carried on; the next tick looks again.
    Broken(String),
}

impl Carrier {
    /// Takes `started` as far as it goes, through `gate`.
    ///
    /// What it takes to reach its hosts is looked for anew; where that cannot be had by the time until which the run may be
    /// planned, or within as long where it had begun before, the rest of it fails, and tells why.
    pub async fn carry(&self, started: &Started, gate: &Gate) -> Outcome {
        let run = &started.run;
        let (access, secrets) = match self.equip(run).await {
            Ok(equipment) => {
                self.waits.over(&run.run);
                equipment
            }
            Err(fail) => {
                match self.is_cancelled(run).await {
                    Ok(true) => gate.close(Stop::Cancelled),
                    Ok(false) if self.waits.may_wait(run, Clock::System.now()) => return Outcome::Waiting(fail.text()),
                    Ok(false) => gate.close(Stop::Unequipped(fail.text())),
                    Err(error) => return Outcome::Broken(Fail::from(error).message),
                };
                self.waits.over(&run.run);
                let trust = Trust::new(self.runs.clone(), run.job.login.host_key, Arc::default(), []);
                let (connector, keyring) = (Connector::default(), Keyring::new(Identities::default()));
                (Access { connector, keyring, trust, clock: Clock::System }, Arc::default())
            }
        };
        let (events, mut heard) = mpsc::channel(EVENTS);
        let passing = tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let worker = Worker {
            runs: self.runs.clone(),
            clock: Clock::System,
            events,
            access,
            secrets,
            gate: gate.clone(),
            batch_ended: Arc::new(Notify::new()),
        };
        let driven = drive(&worker, started).await;
        passing.abort();
        let outcome = match driven {
            Ok(driven) => match driven.verdict {
                Some(verdict) => Ok(Outcome::Finished(verdict)),
                None => reconcile::tally(&self.runs, run, &started.plan).await.map(|Tally { counts, .. }| {
                    if driven.stop == Some(Stop::Leaving) { Outcome::Left(counts) } else { Outcome::Detached(counts) }
                }),
            },
            Err(WorkError::Fenced | WorkError::Held(_)) => Ok(Outcome::Elsewhere),
            Err(error) => Ok(Outcome::Broken(told(&error))),
        };
        outcome.unwrap_or_else(|error| Outcome::Broken(Fail::from(error).message))
    }

    /// Looks after the detached tasks of `run` until they have ended, or once.
    pub async fn look_after(&self, run: &RunRecord, once: bool) -> Outcome {
        let begun = Instant::now();
        let mut access = None;
        loop {
            if access.is_none() {
                match self.equip(run).await {
                    Ok((found, _)) => access = Some(found),
                    Err(fail) => match give_up(&self.runs, run, &fail.message, Clock::System.now()).await {
                        Ok(false) => self.complain(&run.run, fail.text()),
                        Ok(true) => match self.runs.verdict(&run.run).await {
                            Ok(verdict) => return verdict.map_or(Outcome::Elsewhere, Outcome::Finished),
                            Err(error) => self.complain(&run.run, Fail::from(error).message),
                        },
                        Err(error) => self.complain(&run.run, told(&error)),
                    },
                }
            }
            let mut pause = (begun.elapsed() / 10).clamp(LOOK_AT_FIRST, LOOK_AT_LAST);
            if let Some(access) = &access {
                match self.look(run, access).await {
                    Ok(Some(verdict)) => return Outcome::Finished(verdict),
                    Ok(None) => {}
                    Err(why) => {
                        self.complain(&run.run, why);
                        pause = LOOK_AT_LAST;
                    }
                }
            }
            if once {
                return self.standing(run).await.unwrap_or_else(|error| Outcome::Broken(Fail::from(error).message));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks every host once where its task stands, or to end it where someone asked for that.
    async fn look(&self, run: &RunRecord, access: &Access<AnyStore>) -> Result<Option<Verdict>, String> {
        let store = |error: StoreError| Fail::from(error).message;
        let collector = Collector { runs: self.runs.clone(), access: access.clone(), clock: Clock::System };
        let looked = if self.is_cancelled(run).await.map_err(store)? {
            collector.end(run).await
        } else {
            collector.look(run).await
        };
        let Round { running, troubles, .. } = looked.map_err(|error| told(&error))?;
        if running == 0 {
            return self.runs.verdict(&run.run).await.map_err(store);
        }
        match troubles.as_slice() {
            [] => Ok(None),
            [(target, why), rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
                Err(format!("{} was not asked: {why}{more}", target.instance))
            }
        }
    }

    async fn is_cancelled(&self, run: &RunRecord) -> Result<bool, StoreError> {
        Ok(self.runs.control(&run.run).await?.is_some_and(|(control, _)| control.cancelled))
    }

    async fn standing(&self, run: &RunRecord) -> Result<Outcome, StoreError> {
        let view = history::load(&self.runs, &run.run).await?;
        Ok(view.map_or(Outcome::Elsewhere, |view| Outcome::Detached(view.counts())))
    }

    /// What it takes to reach the hosts of `run`, and its secrets.
    async fn equip(&self, run: &RunRecord) -> Result<(Access<AnyStore>, Arc<Secrets>), Fail> {
        let root = &self.workspace.root;
        let mut targets = Vec::new();
        let plan = self.runs.plan(&run.run).await?;
        for n in 0..plan.map_or(0, |plan| u32::try_from(plan.batches.len()).unwrap_or(u32::MAX)) {
            targets.extend(self.runs.targets(&run.run, n).await?.map(|batch| batch.targets).unwrap_or_default());
        }
        let keyring = load_keys_unattended(&run.job, &targets, &self.workspace).await?;
        let secrets = resolve_secrets(&run.job, &self.workspace).await?;
        // A connector of its own: jobs that share a jump host may log in to it, and trust it, each in its own way.
        Ok((access(&run.job, keyring, root, &self.runs)?, secrets))
    }

    fn complain(&self, run: &RunId, why: String) {
        // Where thousands of complaints wait one more would not be read.
        let _ = self.troubles.try_send((run.to_string(), why));
    }
}

fn told(error: &WorkError) -> String {
    let cause = match error {
        WorkError::Store(error) => std::error::Error::source(&**error).map(|cause| format!(": {cause}")),
        _ => None,
    };
    format!("{error}{}", cause.unwrap_or_default())
}
