//! Live progress: one line on standard error that says how far a run is and what holds it up.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::domain::id::InstanceId;
use crate::domain::task::{Counts, TaskState};
use crate::engine::event::Event;

use super::lines::clean;

/// How often the line is drawn anew: often enough to look alive, seldom enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(125);

/// How many of the hosts that take longest are named.
const SLOWEST: usize = 3;

/// What is known of a run while it lasts.
#[derive(Debug, Default)]
struct Live {
    targets: u32,
    counts: Counts,
    running: HashMap<InstanceId, Instant>,
    /// Those that run without us.
    detached: HashSet<InstanceId>,
    stopping: Option<String>,
}

impl Live {
    fn note(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Started { targets, .. } => self.targets = *targets,
            Event::TaskStarted { target, .. } => {
                self.running.insert(target.instance.clone(), now);
            }
            Event::TaskRetried { target, .. } => {
                self.running.remove(&target.instance);
            }
            Event::TaskFinished { target, record, .. } => {
                self.running.remove(&target.instance);
                if record.state.is_final() {
                    self.detached.remove(&target.instance);
                    self.counts.add(record.state);
                } else {
                    self.detached.insert(target.instance.clone());
                }
            }
            Event::Stopping { reason } => self.stopping = Some(reason.clone()),
            Event::Released { .. } | Event::Finished { .. } => {}
        }
    }

    fn line(&self, now: Instant) -> String {
        let mut parts = vec![format!("{}/{} done", self.counts.total() as usize + self.detached.len(), self.targets)];
        let troubles = self.counts.iter().filter(|(state, _)| *state != TaskState::Succeeded);
        parts.extend(troubles.map(|(state, count)| format!("{count} {}", state.as_str().replace('_', " "))));
        let running = self.running.len() + self.detached.len();
        if running > 0 {
            parts.push(format!("{running} running"));
        }
        if let Some(reason) = &self.stopping {
            parts.push(format!("stopping: {}", clean(reason)));
        }
        let mut slowest: Vec<_> = self.running.iter().map(|(host, since)| (*since, host)).collect();
        slowest.sort_unstable();
        let named = slowest.into_iter().take(SLOWEST);
        let named: Vec<_> =
            named.map(|(since, host)| format!("{host} {}s", now.duration_since(since).as_secs())).collect();
        let gap = if named.is_empty() { "" } else { " · " };
        format!("{}{gap}{}", parts.join(", "), named.join(", "))
    }
}

/// The line, drawn by a thread of its own, so that a terminal that stands still holds nothing up.
#[derive(Debug)]
pub(super) struct Progress {
    live: Arc<Mutex<Live>>,
    bar: ProgressBar,
    drawing: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Starts drawing.
    pub(super) fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        let live = Arc::new(Mutex::new(Live::default()));
        let (stop, stopped) = mpsc::channel::<()>();
        let (shared, drawn) = (Arc::clone(&live), bar.clone());
        let drawing = thread::spawn(move || {
            while stopped.recv_timeout(REDRAW) == Err(mpsc::RecvTimeoutError::Timeout) {
                // In two steps: nobody who has something to tell waits for the terminal.
                let message = lock(&shared).line(Instant::now());
                drawn.set_message(message);
                drawn.tick();
            }
        });
        Self { live, bar, drawing: Some((stop, drawing)) }
    }

    /// What prints beside it must suspend.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// What events are told to.
    pub(super) fn feed(&self) -> Feed {
        Feed(Arc::clone(&self.live))
    }

    /// Takes the line away, for good.
    pub(super) fn clear(&mut self) {
        if let Some((stop, drawing)) = self.drawing.take() {
            drop(stop);
            // It drew its last; a panic of its own would have been told already.
            let _ = drawing.join();
            self.bar.finish_and_clear();
        }
    }
}

/// Where the line learns what happened.
#[derive(Debug)]
pub(super) struct Feed(Arc<Mutex<Live>>);

impl Feed {
    /// Takes in what happened.
    pub(super) fn note(&self, event: &Event) {
        lock(&self.0).note(event, Instant::now());
    }
}

fn lock(live: &Mutex<Live>) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_names_the_hosts_that_take_longest() {
        let now = Instant::now();
        let mut live = Live { targets: 9, ..Live::default() };
        assert_eq!(live.line(now), "0/9 done");
        live.counts.add(TaskState::Succeeded);
        live.counts.add(TaskState::TimedOut);
        for (host, seconds) in [("a", 2), ("b", 70), ("c", 9), ("d", 0)] {
            live.running.insert(host.parse().unwrap(), now.checked_sub(Duration::from_secs(seconds)).unwrap());
        }
        assert_eq!(live.line(now), "2/9 done, 1 timed out, 4 running · b 70s, c 9s, a 2s");
    }
}
