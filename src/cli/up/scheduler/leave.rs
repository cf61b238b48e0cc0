//! How a scheduler goes when it is asked to.

use std::time::Duration;

use tokio::time::Instant;

use super::Scheduler;
use crate::cli::output::words::number;
use crate::cli::signals::Signals;
use crate::engine::gate::{Gate, Stop};

/// How long what is ended on its hosts may take to end: TERM, 10 s, KILL.
const END_WITHIN: Duration = Duration::from_secs(30);

impl Scheduler {
    /// Starts nothing more, lets attached tasks end within the grace, then ends them; detached ones stay. Tells whether
    /// all has ended.
    pub(super) async fn leave(&mut self, signals: &mut Signals) -> bool {
        let gates: Vec<Gate> = self.at.values().map(|(_, gate)| gate.clone()).collect();
        for gate in &gates {
            gate.close(Stop::Leaving);
        }
        if !self.at.is_empty() {
            let runs = number(self.at.len(), "run");
            let grace = self.grace.as_secs();
            self.teller.remark(&format!("going: {runs} may end what is started within {grace}s; nothing more is"));
        }
        for (n, patience) in [self.grace, END_WITHIN].into_iter().enumerate() {
            if n == 1 && !self.at.is_empty() {
                self.teller.remark("ending what still runs; detached scripts stay");
                for gate in &gates {
                    gate.end(Stop::Leaving);
                }
            }
            let until = Instant::now() + patience;
            while !self.at.is_empty() {
                tokio::select! {
                    biased;
                    // Asked once more: what is connected ends with its connection, by its watchdog.
                    () = signals.heard() => return false,
                    Some(ended) = self.work.join_next() => self.ended(ended),
                    () = tokio::time::sleep_until(until) => break,
                }
            }
        }
        self.at.is_empty()
    }
}
