//! A live run, from its events to what is shown.
//!
//! Events are taken in at once and shown by a thread that may wait for the store or for a slow reader: a person who
//! reads along in a pager never holds up a run. What waits to be shown keeps its place without its output, which is
//! in the store.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::cli::context::Format;
use crate::cli::exit::{Exit, Fail};
use crate::domain::document::{EventDocument, RunSummary};
use crate::domain::id::InstanceId;
use crate::domain::quantity::Span;
use crate::domain::run::{RunRecord, RunState, Target, Verdict};
use crate::domain::task::{Counts, TaskRecord, TaskState};
use crate::engine::event::{Event, Head};
use crate::engine::records::Runs;
use crate::port::{Store, StoreError};

use super::console::Console;
use super::group::Groups;
use super::json::{self, Listing};
use super::lines::clean;
use super::progress::Progress;
use super::words::elapsed;
use super::{advice, text, verdict};

/// How much output waits in memory to be shown.
const BACKLOG_BYTES: usize = 8 * 1024 * 1024;

/// How a run is shown.
#[derive(Debug, Clone)]
pub struct Options {
    /// For whom.
    pub format: Format,
    /// Identical outputs once; of the text format.
    pub group: bool,
    /// No progress, no summary.
    pub quiet: bool,
    /// The length of the longest host name, where it is known: status lines line up from the first on.
    pub width: usize,
    /// Whether a run that goes on without us is waited for, and its end shown by others.
    pub awaited: bool,
    /// How long the script may run on a host.
    pub timeout: Span,
    /// How hints call this program, as `sshjob --store DIR`; none where there are to be no hints.
    pub program: Option<String>,
}

/// What was shown of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The verdict; `None` where the events ended without one.
    pub verdict: Option<Verdict>,
    /// How the process ends.
    pub exit: Exit,
}

/// A task that has finished. Without a head, its output must be read from the store.
pub(super) struct Finished {
    pub(super) target: Arc<Target>,
    pub(super) record: TaskRecord,
    pub(super) stdout: Option<Head>,
    pub(super) stderr: Option<Head>,
}

/// What every form of output works with.
pub(super) struct Scene<S> {
    pub(super) console: Console,
    pub(super) runs: Runs<S>,
    pub(super) run: Option<Arc<RunRecord>>,
    /// The length of the longest host name so far.
    pub(super) width: usize,
    /// Whether some output could not be shown.
    pub(super) failed: bool,
}

impl<S> Scene<S> {
    /// Says that output could not be read back; the run itself goes on.
    pub(super) fn complain(&mut self, error: StoreError) {
        self.failed = true;
        self.console.err(format!("warning: {}\n", Fail::from(error).message));
    }
}

/// Shows a run until its events end. Prints nothing more once nobody reads the results; the run goes on.
pub async fn print<S: Store>(
    mut events: mpsc::Receiver<Event>,
    options: Options,
    mut console: Console,
    runs: Runs<S>,
) -> Shown {
    let progress = (console.err_is_terminal() && !options.quiet).then(Progress::start);
    console.attach(progress.as_ref().map(Progress::bar));
    let feed = progress.as_ref().map(Progress::feed);
    let waiting = Arc::new(AtomicUsize::new(0));
    let (queue, queued) = mpsc::unbounded_channel();

    let scene = Scene { console, runs, run: None, width: options.width, failed: false };
    let printer = Printer::new(scene, progress, options);
    let (handle, shared) = (Handle::current(), Arc::clone(&waiting));
    let shown = tokio::task::spawn_blocking(move || handle.block_on(printer.show(queued, &shared)));

    while let Some(event) = events.recv().await {
        if let Some(feed) = &feed {
            feed.note(&event);
        }
        // Fails only where the printer is gone, and then nothing can be shown.
        let _ = queue.send(Queued::new(event, &waiting));
    }
    drop(queue);
    shown.await.unwrap_or(Shown { verdict: None, exit: Exit::Unavailable })
}

/// An event that waits to be shown.
enum Queued {
    Finished { task: Finished, bytes: usize },
    Other(Event),
}

impl Queued {
    fn new(event: Event, waiting: &AtomicUsize) -> Self {
        let Event::TaskFinished { target, record, stdout, stderr } = event else { return Self::Other(event) };
        let bytes = stdout.bytes.len() + stderr.bytes.len();
        if waiting.load(Ordering::Relaxed) + bytes > BACKLOG_BYTES {
            return Self::Finished { task: Finished { target, record, stdout: None, stderr: None }, bytes: 0 };
        }
        waiting.fetch_add(bytes, Ordering::Relaxed);
        Self::Finished { task: Finished { target, record, stdout: Some(stdout), stderr: Some(stderr) }, bytes }
    }
}

/// The form that a run takes.
enum Form {
    /// One document that is not ours to write: it comes when the run has been waited for.
    Later,
    Text,
    Group(Groups),
    Json(Listing),
    Ndjson,
}

/// Shows one event after the other.
struct Printer<S> {
    scene: Scene<S>,
    form: Form,
    progress: Option<Progress>,
    options: Options,
    targets: u32,
    counts: Counts,
    /// The tasks that run without us; held where each is to be shown once, as it stands at the end.
    detached: BTreeMap<InstanceId, Option<Finished>>,
    /// The first host that failed by itself, whose output tells most.
    telling: Option<String>,
    verdict: Option<Verdict>,
    /// The tasks of a run that goes on without us, by their states.
    released: Option<Counts>,
}

impl<S: Store> Printer<S> {
    fn new(scene: Scene<S>, progress: Option<Progress>, options: Options) -> Self {
        let form = match options.format {
            Format::Text if options.group => Form::Group(Groups::default()),
            Format::Text => Form::Text,
            Format::Json if options.awaited => Form::Later,
            Format::Json => Form::Json(Listing::of("tasks")),
            Format::Ndjson => Form::Ndjson,
        };
        let counts = Counts::default();
        Self {
            scene,
            form,
            progress,
            options,
            targets: 0,
            counts,
            detached: BTreeMap::new(),
            telling: None,
            verdict: None,
            released: None,
        }
    }

    async fn show(mut self, mut queued: mpsc::UnboundedReceiver<Queued>, waiting: &AtomicUsize) -> Shown {
        while let Some(event) = queued.recv().await {
            match event {
                Queued::Finished { task, bytes } => {
                    self.task(task).await;
                    waiting.fetch_sub(bytes, Ordering::Relaxed);
                }
                Queued::Other(Event::Finished { run, verdict }) => {
                    self.scene.run = Some(run);
                    self.verdict = Some(verdict);
                    break;
                }
                Queued::Other(Event::Released { run, counts }) => {
                    self.scene.run = Some(run);
                    self.released = Some(counts);
                    break;
                }
                Queued::Other(event) => self.event(event),
            }
        }
        self.finish().await
    }

    async fn task(&mut self, task: Finished) {
        let instance = task.target.instance.clone();
        if task.record.state.is_final() {
            self.detached.remove(&instance);
            self.counts.add(task.record.state);
            self.show_task(task).await;
        } else if matches!(self.form, Form::Json(_) | Form::Group(_)) {
            self.detached.insert(instance, Some(task));
        } else {
            self.detached.insert(instance, None);
            self.show_task(task).await;
        }
    }

    async fn show_task(&mut self, mut task: Finished) {
        let by_itself = matches!(task.record.state, TaskState::Failed | TaskState::TimedOut);
        if by_itself && self.telling.is_none() {
            self.telling = Some(task.target.instance.to_string());
        }
        if matches!(self.form, Form::Text | Form::Group(_))
            && let (Some(reason), Some(program)) = (&mut task.record.reason, &self.options.program)
        {
            *reason = advice::as_called(reason, program);
        }
        let scene = &mut self.scene;
        match &mut self.form {
            Form::Later => {}
            Form::Text => text::finished(scene, task).await,
            Form::Group(groups) => groups.add(scene, task).await,
            Form::Json(writer) => {
                if let Some(document) = json::finished(scene, task).await {
                    writer.item(&mut scene.console, &document);
                }
            }
            Form::Ndjson => {
                if let Some(document) = json::finished(scene, task).await {
                    json::line(&mut scene.console, &EventDocument::task_ended(document));
                }
            }
        }
    }

    /// Shows what is not the end of a task or of the run.
    fn event(&mut self, event: Event) {
        if let Event::Started { run, targets } = &event {
            self.scene.run = Some(Arc::clone(run));
            self.targets = *targets;
        }
        let Some(run) = &self.scene.run else { return };
        let console = &mut self.scene.console;
        match (&self.form, event) {
            (Form::Ndjson, Event::Started { run, targets }) => {
                json::line(console, &EventDocument::run_started(&run, targets));
            }
            (Form::Ndjson, Event::TaskStarted { target, attempt }) => {
                json::line(console, &EventDocument::task_started(&run.run, &target, attempt));
            }
            (Form::Ndjson, Event::TaskRetried { target, record, delay }) => {
                json::line(console, &EventDocument::task_retried(&run.run, &target, &record, delay));
            }
            (Form::Ndjson, Event::Stopping { reason }) => {
                json::line(console, &EventDocument::stopping(&run.run, &reason));
            }
            (Form::Text | Form::Group(_), Event::TaskRetried { target, record, delay }) if !self.options.quiet => {
                let status = text::status(target.instance.as_str(), &record, self.scene.width, console.err_color());
                let next = record.attempt.saturating_add(1);
                console.err(format!("{}  (attempt {next} in {})\n", status.trim_end(), elapsed(delay)));
            }
            (Form::Text | Form::Group(_), Event::Stopping { reason }) if !self.options.quiet => {
                console.err(format!("no more tasks are started: {}\n", clean(&reason)));
            }
            _ => {}
        }
    }

    /// Shows the end: the verdict, or how far the run was seen to come.
    async fn finish(mut self) -> Shown {
        if let Some(mut progress) = self.progress.take() {
            progress.clear();
            self.scene.console.attach(None);
        }
        for held in take(&mut self.detached).into_values() {
            self.counts.add(TaskState::Running);
            if let Some(task) = held {
                self.show_task(task).await;
            }
        }
        if let Form::Group(groups) = &mut self.form {
            groups.show(&mut self.scene).await;
        }
        let summary = self.summary();
        let console = &mut self.scene.console;
        match (self.form, &summary) {
            _ if self.released.is_some() && self.options.awaited => {}
            (Form::Json(writer), Some(summary)) => writer.finish(console, summary),
            (Form::Ndjson, Some(summary)) if self.verdict.is_some() => {
                json::line(console, &EventDocument::run_finished(summary.clone()));
            }
            (Form::Ndjson, Some(summary)) if self.released.is_some() => {
                json::line(console, &EventDocument::run_released(summary.clone()));
            }
            (Form::Text | Form::Group(_), Some(summary)) if self.released.is_some() && !self.options.quiet => {
                console.err(verdict::line(summary, console.err_color()));
                if let Some(program) = &self.options.program {
                    console.err(verdict::hints_of_detached(&summary.run, self.options.timeout, program));
                }
            }
            (Form::Text | Form::Group(_), Some(summary)) if self.verdict.is_some() && !self.options.quiet => {
                console.err(verdict::line(summary, console.err_color()));
                if let Some(program) = &self.options.program {
                    console.err(verdict::hints(summary, self.telling.as_deref(), program));
                }
            }
            _ => {}
        }
        let exit = match &self.verdict {
            Some(verdict) => verdict::exit(verdict.state, verdict.reason.as_deref(), &verdict.counts),
            // What did not come to run decides; the rest is on its way.
            None => self.released.as_ref().map_or(Exit::Unavailable, verdict::exit_of_released),
        };
        let failed = self.scene.failed || self.scene.console.has_failed();
        Shown { verdict: self.verdict, exit: if failed { exit.min(Exit::Unavailable) } else { exit } }
    }

    fn summary(&self) -> Option<RunSummary> {
        let run = self.scene.run.as_ref()?;
        if let Some(Verdict { state, reason, counts, finished_at, .. }) = self.verdict.clone() {
            return Some(RunSummary::new(run, state, reason, Some(finished_at), counts));
        }
        if let Some(counts) = self.released.clone() {
            return Some(RunSummary::new(run, RunState::Running, None, None, counts));
        }
        let mut counts = self.counts.clone();
        // Of the others nothing was heard; whether one is running, `status` tells.
        (counts.total()..self.targets).for_each(|_| counts.add(TaskState::Pending));
        Some(RunSummary::new(run, RunState::Running, None, None, counts))
    }
}
