//! What a scheduler says: one line, or one event, per firing, skip and verdict; everything else goes to standard error.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::output::lines::clean;
use crate::cli::output::words::{Style, elapsed, instant, number, tally};
use crate::domain::document::{EventDocument, RunList, RunSummary, Schema};
use crate::domain::id::{JobName, RunId};
use crate::domain::run::{RunRecord, RunState, Verdict};
use crate::domain::task::Counts;
use crate::engine::clock::Clock;

/// Lines that wait to be written: a reader that is this far behind does not read, and must not hold up the scheduler.
const WAITING: usize = 10_000;

/// How long whoever reads may take to take the rest.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Troubles that are remembered as told.
const REMEMBERED: usize = 10_000;

/// How long after a trouble was told it is told again.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What the id of a run has besides the name of its job, as `-20261123T051500Z`.
const FIRING: usize = 17;

/// Something to be written.
enum Said {
    Out(String),
    Err(String),
}

/// Tells what happens.
pub struct Teller {
    format: Format,
    color: bool,
    quiet: bool,
    /// The length of the longest run id so far: lines line up.
    width: usize,
    said: SyncSender<Said>,
    unsaid: u64,
    /// Tells whether all that was said could be written.
    written: oneshot::Receiver<bool>,
    /// What was last said of whom, and when.
    troubles: HashMap<String, (String, Timestamp)>,
    waiting: HashMap<RunId, String>,
    started: HashSet<RunId>,
    ended: Vec<RunSummary>,
}

impl Teller {
    /// Tells as `global` says.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn new(global: &Global) -> Result<Self, Fail> {
        let (said, heard) = sync_channel(WAITING);
        let console = Console::new(global.color);
        let color = console.out_color();
        let (done, written) = oneshot::channel();
        let writing = move || {
            // Who goes meanwhile does not want to know.
            let _ = done.send(write(console, &heard));
        };
        let writer = std::thread::Builder::new().name("tell".to_owned()).spawn(writing);
        writer.map_err(|error| Fail::new(Exit::Unavailable, format!("cannot start a thread: {error}")))?;
        Ok(Self {
            format: global.output,
            color,
            quiet: global.quiet,
            width: 0,
            said,
            unsaid: 0,
            written,
            troubles: HashMap::new(),
            waiting: HashMap::new(),
            started: HashSet::new(),
            ended: Vec::new(),
        })
    }

    /// Leaves room for the runs of these jobs: lines line up from the first on.
    pub fn make_room<'j>(&mut self, jobs: impl Iterator<Item = &'j JobName>) {
        let longest = jobs.map(|job| job.as_str().len() + FIRING).max().unwrap_or_default();
        self.width = self.width.max(longest);
    }

    /// A firing became a run.
    pub fn fired(&mut self, run: &RunId, scheduled_for: Timestamp) {
        match self.format {
            Format::Text => self.line(Clock::System.now(), "fired", Style::Busy, run, ""),
            Format::Json => {}
            Format::Ndjson => self.event(&EventDocument::run_fired(run, scheduled_for)),
        }
    }

    /// A run is planned and about to start.
    pub fn started(&mut self, run: &RunRecord, targets: u32) {
        self.waiting.remove(&run.run);
        if self.format == Format::Ndjson && self.started.insert(run.run.clone()) {
            self.event(&EventDocument::run_started(run, targets));
        }
    }

    /// A run cannot start yet; said once for every reason.
    pub fn waiting(&mut self, run: &RunId, why: &str) {
        if self.waiting.insert(run.clone(), why.to_owned()).is_some_and(|before| before == why) {
            return;
        }
        match self.format {
            Format::Text => self.line(Clock::System.now(), "waiting", Style::Dim, run, &clean(why)),
            Format::Json => {}
            Format::Ndjson => self.event(&EventDocument::run_waiting(run, why)),
        }
    }

    /// A run is finished; one that a policy keeps from running is finished at once.
    pub fn finished(&mut self, run: &RunRecord, verdict: &Verdict) {
        self.waiting.remove(&run.run);
        self.started.remove(&run.run);
        let Verdict { state, reason, counts, finished_at, .. } = verdict.clone();
        let summary = RunSummary::new(run, state, reason, Some(finished_at), counts);
        match self.format {
            Format::Text => self.standing(&summary),
            Format::Json => self.ended.push(summary),
            Format::Ndjson => self.event(&EventDocument::run_finished(summary)),
        }
    }

    /// A run goes on without us.
    pub fn released(&mut self, run: &RunRecord, counts: Counts, why: &str) {
        let summary = RunSummary::new(run, RunState::Running, Some(why.to_owned()), None, counts);
        match self.format {
            Format::Text => self.standing(&summary),
            Format::Json => self.ended.push(summary),
            Format::Ndjson => self.event(&EventDocument::run_released(summary)),
        }
    }

    /// Something could not be done; said once for every reason, and again for as long as it lasts.
    pub fn trouble(&mut self, whose: &str, why: &str) {
        if self.troubles.len() >= REMEMBERED {
            self.troubles.clear();
        }
        let (why, now) = (clean(why), Clock::System.now());
        if let Some((before, said)) = self.troubles.get(whose)
            && *before == why
            && now.duration_since(*said).abs() < AGAIN_AFTER
        {
            return;
        }
        self.note(&format!("warning: {whose}: {why}"));
        self.troubles.insert(whose.to_owned(), (why, now));
    }

    /// Remembers what was said of no other runs than these: another scheduler may have ended the others.
    pub fn forget_others(&mut self, active: &HashSet<&RunId>) {
        self.waiting.retain(|run, _| active.contains(run));
        self.started.retain(|run| active.contains(run));
    }

    /// All is well again with what there was trouble with.
    pub fn well(&mut self, whose: &str) {
        self.troubles.remove(whose);
    }

    /// Says something for whoever looks after the scheduler.
    pub fn note(&mut self, text: &str) {
        self.say(Said::Err(format!("{}\n", text.trim_end())));
    }

    /// Says something of no importance.
    pub fn remark(&mut self, text: &str) {
        if !self.quiet {
            self.note(text);
        }
    }

    /// Says the rest; tells whether standard output took all there was, within a few seconds.
    pub async fn finish(mut self) -> bool {
        if self.format == Format::Json
            && let Ok(list) =
                serde_json::to_string(&RunList { schema: Schema::V1, runs: std::mem::take(&mut self.ended) })
        {
            self.say(Said::Out(format!("{list}\n")));
        }
        drop(self.said);
        // Whoever holds the other end of a pipe and does not read must not keep us.
        let written = timeout(FINISH_WITHIN, self.written).await;
        self.unsaid == 0 && matches!(written, Ok(Ok(true)))
    }

    fn standing(&mut self, run: &RunSummary) {
        let mut parts = Vec::new();
        if run.counts.total() > 0 {
            let took = run.took().map(|took| format!(" in {}", elapsed(took))).unwrap_or_default();
            let hosts = number(run.counts.total() as usize, "host");
            parts.push(format!("{} of {hosts}{took}", tally(&run.counts)));
        }
        parts.extend(run.reason.as_deref().map(clean));
        let at = run.finished_at.unwrap_or_else(|| Clock::System.now());
        self.line(at, run.state.as_str(), Style::of_run(run.state), &run.run, &parts.join(": "));
    }

    /// The time, the state, the run, whose id begins with its job, and what there is to say.
    fn line(&mut self, at: Timestamp, state: &str, style: Style, run: &RunId, text: &str) {
        self.width = self.width.max(run.as_str().len());
        // As wide as the longest state, `succeeded`; the colour must not count.
        let state = style.paint(&format!("{state:<9}"), self.color);
        let line = format!("{}  {state}  {:<width$}  {text}", instant(at), run.as_str(), width = self.width);
        self.say(Said::Out(format!("{}\n", line.trim_end())));
    }

    fn event(&mut self, event: &EventDocument) {
        if let Ok(line) = serde_json::to_string(event) {
            self.say(Said::Out(format!("{line}\n")));
        }
    }

    fn say(&mut self, said: Said) {
        match self.said.try_send(said) {
            Ok(()) => {}
            // The store has all of it.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.unsaid += 1,
        }
    }
}

/// Writes what is said; tells whether that could be done.
fn write(mut console: Console, heard: &Receiver<Said>) -> bool {
    for said in heard {
        match said {
            Said::Out(text) => console.out(text),
            Said::Err(text) => console.err(text),
        }
    }
    !console.has_failed()
}
