//! What `status`, `logs` and `cancel` ask of the hosts of a detached run.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::access;
use super::context::Global;
use super::exit::{Exit, Fail};
use super::keys;
use super::launch::notice;
use super::output::lines::clean;
use super::project::Workspace;
use crate::adapter::store::AnyStore;
use crate::domain::id::{InstanceId, RunId};
use crate::domain::run::{Carrier, RunRecord, Target};
use crate::engine::clock::Clock;
use crate::engine::collect::{Collector, Round};
use crate::engine::history;
use crate::engine::records::Runs;
use crate::engine::worker::WorkError;

/// How long hosts are asked that always have more to tell.
const CATCH_UP_WITHIN: Duration = Duration::from_mins(1);

/// Looks after a detached run.
pub struct Care {
    collector: Collector<AnyStore>,
    run: RunRecord,
    /// What was said of hosts: once is enough.
    told: Mutex<HashSet<String>>,
    /// Who was not asked at least once.
    missed: Mutex<HashSet<InstanceId>>,
}

impl Care {
    /// Gets ready to ask the hosts of `run`; `None` where none of its tasks runs there or is about to.
    ///
    /// # Errors
    /// Where they could not be logged in to.
    pub async fn of(runs: &Runs<AnyStore>, run: &RunId, global: &Global) -> Result<Option<Self>, Fail> {
        let Some(view) = history::load(runs, run).await? else { return Ok(None) };
        let is_ours = view.record.carrier != Carrier::Functions;
        // Workers ask the hosts of theirs: where those are, and with which keys, we need not know.
        if view.verdict.is_some() || !view.record.job.mode.is_detached() || !is_ours {
            return Ok(None);
        }
        let workspace = Workspace::open(global)?;
        let job = &view.record.job;
        let open = view.tasks.iter().filter(|task| !task.record.state.is_final());
        let targets: Vec<_> = open.map(|task| task.target.clone()).collect();
        let keyring = keys::load_keys(job, &targets, &workspace).await?;
        let access = access::access(job, keyring, &workspace.root, runs)?;
        let collector = Collector { runs: runs.clone(), access, clock: Clock::System };
        Ok(Some(Self { collector, run: view.record, told: Mutex::default(), missed: Mutex::default() }))
    }

    /// Asks every host until all that it has to tell is stored, or for a minute at most: some never stop talking.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn catch_up(&self) -> Result<(), Fail> {
        let caught_up = self.collector.catch_up(&self.run, |target, why| self.tell(target, why));
        timeout(CATCH_UP_WITHIN, caught_up).await.unwrap_or(Ok(())).map_err(refuse)
    }

    /// Ends every task.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn end(&self) -> Result<Round, Fail> {
        let round = self.collector.end(&self.run).await.map_err(refuse)?;
        round.troubles.iter().for_each(|(target, why)| self.tell(target, why));
        // At once: how the task ended may not be known before somebody else looks.
        round.survivors.iter().for_each(|(target, who)| self.warn(format!("{}: {}", target.instance, clean(who))));
        Ok(round)
    }

    /// Follows every task until nothing runs any more, or it is `until`; tells whether nothing does.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn watch(&self, until: Option<Instant>) -> Result<bool, Fail> {
        let over =
            self.collector.follow(&self.run, |target, why| self.tell(target, why)).map(|over| over.map(|()| true));
        let over = match until {
            Some(until) => timeout_at(until, over).await.unwrap_or(Ok(false)),
            None => over.await,
        };
        over.map_err(refuse)
    }

    /// Whether `instance` was not asked, at least once: the store may not have all that it has to tell.
    pub fn has_missed(&self, instance: &InstanceId) -> bool {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).contains(instance)
    }

    fn tell(&self, target: &Target, why: &str) {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).insert(target.instance.clone());
        self.warn(format!("{} was not asked: {}", target.instance, clean(why)));
    }

    fn warn(&self, what: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(&what) {
            notice(&format!("warning: {what}"));
            told.insert(what);
        }
    }
}

fn refuse(error: WorkError) -> Fail {
    match error {
        WorkError::Store(error) => {
            let cause = std::error::Error::source(&*error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Fail::new(Exit::Unavailable, format!("{error}{cause}"))
        }
        other => Fail::new(Exit::Unavailable, other.to_string()),
    }
}
