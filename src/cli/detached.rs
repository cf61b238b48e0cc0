//! What `status`, `logs` and `cancel` ask of the hosts of a detached run.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::access;
use super::context::Global;
use super::exit::{Exit, Fail};
use super::keys;
use super::launch::notice;
use super::output::lines::clean;
use super::project::Workspace;
use crate::adapter::dir::Dir;
use crate::domain::id::RunId;
use crate::domain::run::RunRecord;
use crate::engine::clock::Clock;
use crate::engine::collect::{Collector, Round};
use crate::engine::history;
use crate::engine::records::Runs;
use crate::engine::worker::WorkError;

/// How often hosts are asked that have nothing new to tell; as often as there is something where there is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long hosts are asked that always have more to tell.
const CATCH_UP_WITHIN: Duration = Duration::from_mins(1);

/// Looks after a detached run.
pub struct Care {
    collector: Collector<Dir>,
    run: RunRecord,
    /// What was said of hosts that do not answer: once is enough.
    told: HashSet<String>,
}

impl Care {
    /// Gets ready to ask the hosts of `run`; `None` where none of its tasks runs there or is about to.
    ///
    /// # Errors
    /// Where they could not be logged in to.
    pub async fn of(runs: &Runs<Dir>, run: &RunId, global: &Global) -> Result<Option<Self>, Fail> {
        let Some(view) = history::load(runs, run).await? else { return Ok(None) };
        if view.verdict.is_some() || !view.record.job.mode.is_detached() {
            return Ok(None);
        }
        let workspace = Workspace::open(global)?;
        let job = &view.record.job;
        let open = view.tasks.iter().filter(|task| !task.record.state.is_final());
        let targets: Vec<_> = open.map(|task| task.target.clone()).collect();
        let keyring = keys::load_keys(job, &targets, &workspace.root).await?;
        let access = access::access(job, keyring, &workspace.root, runs)?;
        let collector = Collector { runs: runs.clone(), access, clock: Clock::System };
        Ok(Some(Self { collector, run: view.record, told: HashSet::new() }))
    }

    /// Asks every host once where its task stands.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn look(&mut self) -> Result<Round, Fail> {
        let round = self.collector.look(&self.run).await.map_err(refuse)?;
        self.tell(&round);
        Ok(round)
    }

    /// Asks every host until all that it has to tell is stored, or for a minute at most: some never stop talking.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn catch_up(&mut self) -> Result<(), Fail> {
        let until = Instant::now() + CATCH_UP_WITHIN;
        while self.look().await?.more && Instant::now() < until {}
        Ok(())
    }

    /// Ends every task.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn end(&mut self) -> Result<Round, Fail> {
        let round = self.collector.end(&self.run).await.map_err(refuse)?;
        self.tell(&round);
        Ok(round)
    }

    /// Asks until nothing runs any more, or it is `until`; tells whether nothing does.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn watch(&mut self, until: Option<Instant>) -> Result<bool, Fail> {
        loop {
            let round = self.look().await?;
            if round.running == 0 {
                return Ok(true);
            }
            let pause = if round.more { Duration::ZERO } else { LOOK_EVERY };
            let next = Instant::now() + pause;
            if until.is_some_and(|until| until < next) {
                return Ok(false);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    fn tell(&mut self, round: &Round) {
        for (target, why) in &round.troubles {
            let line = format!("warning: {} was not asked: {}", target.instance, clean(why));
            if self.told.insert(line.clone()) {
                notice(&line);
            }
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
