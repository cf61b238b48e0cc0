//! One tick, for whoever has a scheduler of their own.

use jiff::Timestamp;

use super::Scheduler;
use crate::adapter::process;
use crate::cli::exit::{Exit, Fail};
use crate::cli::signals::Signals;
use crate::engine::clock::Clock;

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
        self.tick_once().await;
        let mut has_ended = false;
        loop {
            if self.work.is_empty() && self.looks.is_empty() {
                if !std::mem::take(&mut has_ended) {
                    break;
                }
                // What waited for a run that has ended now is part of this tick, too.
                let (ticker, _) = self.ticker();
                self.look(ticker, self.waiting.iter().cloned().collect());
                continue;
            }
            tokio::select! {
                biased;
                () = signals.heard() => {
                    self.leave(&mut signals).await;
                    self.exit = self.exit.min(Exit::Interrupted);
                    break;
                }
                Some((what, why)) = self.troubles.1.recv() => self.teller.trouble(&what, &why),
                Some(look) = self.looks.next() => self.looked(look, true).await,
                Some(ended) = self.work.join_next() => {
                    self.ended(ended);
                    has_ended = true;
                }
            }
        }
        self.post(&mut signals).await;
        let complete = self.teller.finish().await;
        Ok(if complete { self.exit } else { self.exit.min(Exit::Unavailable) })
    }

    async fn tick_once(&mut self) {
        let (ticker, jobs) = self.ticker();
        self.teller.make_room(jobs.scheduled.iter().map(|it| &it.job.name));
        match ticker.tick(&jobs.scheduled, Clock::System.now()).await {
            Ok(found) => self.take_in(ticker, found).await,
            Err(error) => self.unavailable(error),
        }
    }
}
