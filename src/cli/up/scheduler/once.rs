//! One tick, for whoever has a scheduler of their own.

use jiff::Timestamp;

use super::{Scheduler, Signals};
use crate::adapter::process;
use crate::cli::exit::{Exit, Fail};
use crate::domain::id::RunId;
use crate::engine::clock::Clock;
use crate::engine::tick::Ticked;

impl Scheduler {
    /// Makes one tick, and takes what came of it as far as it goes now.
    ///
    /// # Errors
    /// Where signals cannot be heard.
    pub async fn once(mut self) -> Result<Exit, Fail> {
        let mut signals = Signals::new()?;
        self.exit = if self.book.is_faulty() { Exit::Usage } else { Exit::Success };
        // Nobody lives to see how long a run has waited for its keys: those of a machine that is up for long do not come.
        let booted = process::up_for().and_then(|up| Clock::System.now().checked_sub(up).ok());
        self.waits.since = Some(booted.unwrap_or(Timestamp::MIN));
        let mut waiting = self.tick_once().await;
        loop {
            let ended = tokio::select! {
                biased;
                () = signals.heard() => {
                    self.leave(&mut signals).await;
                    self.exit = self.exit.min(Exit::Interrupted);
                    break;
                }
                Some((what, why)) = self.troubles.1.recv() => {
                    self.teller.trouble(&what, &why);
                    continue;
                }
                ended = self.work.join_next() => ended,
            };
            let Some(ended) = ended else { break };
            self.ended(ended);
            if self.work.is_empty() {
                // What waited for a run that has ended now is part of this tick, too.
                waiting = self.advance(waiting).await;
            }
        }
        self.post(&mut signals).await;
        let complete = self.teller.finish();
        Ok(if complete { self.exit } else { self.exit.min(Exit::Unavailable) })
    }

    async fn tick_once(&mut self) -> Vec<RunId> {
        let (ticker, jobs) = self.ticker();
        self.teller.make_room(jobs.scheduled.iter().map(|it| &it.job.name));
        match ticker.tick(&jobs.scheduled, Clock::System.now()).await {
            Ok(found) => self.take_in(found, true).await,
            Err(error) => {
                self.unavailable(error);
                Vec::new()
            }
        }
    }

    /// Looks again at runs that waited; returns those that still do.
    async fn advance(&mut self, waiting: Vec<RunId>) -> Vec<RunId> {
        let (ticker, _) = self.ticker();
        let mut found = Ticked::default();
        for run in waiting {
            match ticker.advance(&run).await {
                Ok(standing) => found.runs.extend(standing.map(|standing| (run, standing))),
                Err(error) => found.troubles.push((run.to_string(), error.to_string())),
            }
        }
        self.take_in(found, true).await
    }
}
