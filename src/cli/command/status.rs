//! `sshjob status`: Show one run, task by task.

use std::time::Duration;

use crate::cli::context::{Format, Global};
use crate::cli::detached::Care;
use crate::cli::exit::{Exit, Fail};
use crate::cli::launch::program;
use crate::cli::output::console::Console;
use crate::cli::output::json::{self, Listing};
use crate::cli::output::lines::clean;
use crate::cli::output::table::{Cell, table};
use crate::cli::output::words::{Style, elapsed, ending, fold, instant};
use crate::cli::output::{verdict, words};
use crate::cli::pair::hasten;
use crate::cli::store;
use crate::domain::document::{EventDocument, RunSummary, between};
use crate::domain::id::RunId;
use crate::domain::job::HostKeyPolicy;
use crate::domain::task::TaskState;
use crate::engine::clock::Clock;
use crate::engine::history::{RunView, Task, load, refresh};
use crate::engine::records::Runs;
use crate::port::Store;

/// With more tasks than this in a state in which there is nothing to tell of each, they stand on one line.
const FOLD_ABOVE: usize = 50;

/// How often a run that is waited for is looked at.
const POLL: Duration = Duration::from_millis(500);

/// Show one run, task by task
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning of it, or `last`
    #[arg(value_name = "RUN", default_value = "last")]
    pub run: String,
    /// Wait until the run is finished
    #[arg(long)]
    pub wait: bool,
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let runs = store::open_here(&global).await?;
    let run = store::find(&runs, &args.run).await?;
    let mut console = Console::new(global.color);
    current(&runs, &run, &mut console).await?;
    // Who cannot log in to the hosts may still see what is known of them.
    match Care::of(&runs, &run, &global).await {
        Ok(None) => {}
        Ok(Some(care)) if args.wait => {
            care.watch(None).await?;
        }
        Ok(Some(care)) => {
            care.catch_up().await?;
        }
        Err(fail) => console.err(format!("warning: the hosts are not asked: {}\n", fail.message)),
    }
    let record = runs.run(&run).await?;
    // The same run, be `last` another one meanwhile.
    let args = Args { run: run.to_string(), wait: args.wait };
    let record = record.as_ref().filter(|_| args.wait);
    let program = hinting(&global);
    hasten(record, &global, show(&args, global.output, program.as_deref(), &runs, &mut console)).await
}

/// How hints call this program, where somebody wants them.
pub fn hinting(global: &Global) -> Option<String> {
    if global.quiet { None } else { program(global) }
}

/// Shows a run that is in `runs`, with hints for what to do about one that has ended badly, where they know what to call
/// this `program`. Returns what the run itself would have returned, where it is finished.
///
/// # Errors
/// What kept it from being done.
pub async fn show<S: Store>(
    args: &Args,
    format: Format,
    program: Option<&str>,
    runs: &Runs<S>,
    console: &mut Console,
) -> Result<Exit, Fail> {
    let run = store::find(runs, &args.run).await?;
    let view = loop {
        let view = current(runs, &run, console).await?;
        if !args.wait || view.verdict.is_some() {
            break view;
        }
        tokio::time::sleep(POLL).await;
    };
    let summary = view.summary();
    match format {
        Format::Text => {
            text(console, &view, &summary);
            // What was ended on purpose is nothing to be mended.
            if let Some(program) = program.filter(|_| view.verdict.is_some() && summary.counts.failures() > 0) {
                let tells = |task: &&Task| matches!(task.record.state, TaskState::Failed | TaskState::TimedOut);
                let telling = view.tasks.iter().find(tells).map(|task| task.target.instance.as_str());
                console.err(verdict::hints(&summary, telling, program));
            }
        }
        Format::Json => {
            let mut writer = Listing::of("tasks");
            for task in &view.tasks {
                let document = json::document(runs, &view.record, &task.target, &task.record, (None, None)).await?;
                writer.item(console, &document);
            }
            writer.finish(console, &summary);
        }
        Format::Ndjson => replay(console, runs, &view, summary.clone()).await?,
    }
    Ok(verdict::exit(summary.state, summary.reason.as_deref(), &summary.counts))
}

/// The run as it stands, after what a dead process left behind was settled.
///
/// # Errors
/// Where it cannot be read.
pub async fn current<S: Store>(runs: &Runs<S>, run: &RunId, console: &mut Console) -> Result<RunView, Fail> {
    if let Err(error) = refresh(runs, run, Clock::System.now()).await {
        // Who may only read may still look.
        console.err_once(format!("warning: cannot settle what is left of `{run}`: {error}\n"));
    }
    let view = load(runs, run).await?;
    view.ok_or_else(|| Fail::usage(format!("run `{run}` was removed a moment ago")))
}

/// The run as the events that its live output would have had.
async fn replay<S: Store>(
    console: &mut Console,
    runs: &Runs<S>,
    view: &RunView,
    summary: RunSummary,
) -> Result<(), Fail> {
    let run = &view.record;
    json::line(console, &EventDocument::run_started(run, summary.counts.total()));
    for Task { target, record } in &view.tasks {
        if record.state.is_final() {
            let document = json::document(runs, run, target, record, (None, None)).await?;
            json::line(console, &EventDocument::task_ended(document));
        } else if record.state == TaskState::Running {
            json::line(console, &EventDocument::task_started(&run.run, target, record.attempt));
        }
    }
    if summary.finished_at.is_some() {
        json::line(console, &EventDocument::run_finished(summary));
    }
    Ok(())
}

/// The verdict, who asked for what, and a table of the tasks.
fn text(console: &mut Console, view: &RunView, summary: &RunSummary) {
    let color = console.out_color();
    let mut text = verdict::line(summary, color);
    text.push_str(&told(summary, view.record.job.sudo.user()));
    if view.record.job.login.host_key == HostKeyPolicy::Off {
        text.push_str("host keys were not checked (`host_key: off`)\n");
    }
    let mut tasks: Vec<&Task> = view.tasks.iter().collect();
    tasks.sort_by_key(|task| rank(task.record.state));
    let mut folded = Vec::new();
    for state in [TaskState::Pending, TaskState::Succeeded] {
        let alike = |task: &&Task| task.record.state == state;
        let hosts: Vec<&str> = tasks.iter().copied().filter(alike).map(|task| task.target.instance.as_str()).collect();
        if hosts.len() > FOLD_ABOVE {
            tasks.retain(|task| !alike(task));
            let word = Style::of_task(state).paint(state.as_str(), color);
            folded.push(format!("{word} on {}: {}\n", words::number(hosts.len(), "host"), fold(&hosts)));
        }
    }
    if !tasks.is_empty() {
        let rows: Vec<_> = tasks.into_iter().map(row).collect();
        let header = ["HOST", "NAME", "ADDRESS", "STATE", "ENDED", "TOOK", "ATTEMPT", "REASON"];
        text.push('\n');
        text.push_str(&table(header, &rows, color));
    }
    if !folded.is_empty() {
        text.push('\n');
        text.push_str(&folded.concat());
    }
    console.out(text);
}

/// Who asked for the run, when, why, and as whom.
fn told(run: &RunSummary, sudo: Option<&str>) -> String {
    let mut parts = vec![format!("started {} by {}", instant(run.started_at), clean(&run.actor))];
    parts.extend(run.scheduled_for.map(|at| format!("scheduled for {}", instant(at))));
    parts.extend(run.retry_of.as_ref().map(|first| format!("a retry of {first}")));
    parts.extend(sudo.map(|user| format!("as {user} by sudo")));
    format!("{}\n", parts.join(", "))
}

/// Troubles first, then what is under way, then what went well.
fn rank(state: TaskState) -> usize {
    let last = match state {
        TaskState::Running => 1,
        TaskState::Pending => 2,
        TaskState::Succeeded => 3,
        _ => 0,
    };
    last * TaskState::ALL.len() + TaskState::ALL.iter().position(|other| *other == state).unwrap_or_default()
}

fn row(task: &Task) -> [Cell<'_>; 8] {
    let Task { target, record } = task;
    let name = target.name.as_deref().filter(|name| *name != target.instance.as_str());
    [
        target.instance.to_string().into(),
        name.map(clean).unwrap_or_default().into(),
        target.address.as_deref().map(clean).unwrap_or_default().into(),
        Cell::styled(record.state.as_str(), Style::of_task(record.state)),
        ending(record).into(),
        between(record.started_at, record.finished_at).map(elapsed).unwrap_or_default().into(),
        // The usual first attempt is not worth a column.
        if record.attempt > 1 { record.attempt.to_string() } else { String::new() }.into(),
        record.reason.as_deref().map(clean).unwrap_or_default().into(),
    ]
}
