//! `sshjob prune`: Remove old runs.

use std::time::Duration;

use jiff::Timestamp;

use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::output::json;
use crate::cli::output::table::{Cell, table};
use crate::cli::output::words::{Style, instant, number, tally};
use crate::cli::store;
use crate::domain::document::{PruneDocument, Schema};
use crate::domain::quantity::Span;
use crate::engine::clock::Clock;
use crate::engine::prune::{Old, Policy, prune};
use crate::engine::records::Runs;
use crate::port::Store;

/// The age at which a run is old where nobody says otherwise: what people still ask about is younger.
const MONTH: Duration = Duration::from_hours(30 * 24);

/// Remove old runs, and the scripts that no run refers to any more
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only runs that finished longer ago than this [default: 30d; with --keep: any]
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<Span>,
    /// Keep the newest so many finished runs of each job, however old
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

impl Args {
    fn policy(&self) -> Policy {
        let older_than = match (self.older_than, self.keep) {
            (Some(age), _) => Some(age.0),
            (None, Some(_)) => None,
            (None, None) => Some(MONTH),
        };
        Policy { older_than, keep: self.keep.unwrap_or_default() }
    }
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let runs = store::open_here(&global).await?;
    show(&args, &global, &runs, &mut Console::new(global.color), Clock::System.now()).await
}

/// Removes what is old in `runs` at `now`, and says what that was.
///
/// # Errors
/// What kept it from being done.
pub async fn show<S: Store>(
    args: &Args,
    global: &Global,
    runs: &Runs<S>,
    console: &mut Console,
    now: Timestamp,
) -> Result<Exit, Fail> {
    let old = prune(runs, args.policy(), now, args.dry_run).await?;
    for damaged in &old.damaged {
        console.err(format!("warning: {damaged}; it stays, and so do all scripts\n"));
    }
    match global.output {
        Format::Text => text(console, &old, args.dry_run, global.quiet),
        Format::Json | Format::Ndjson => {
            let Old { runs, leftovers, scripts, .. } = old;
            let dry_run = args.dry_run;
            json::line(console, &PruneDocument { schema: Schema::V1, dry_run, runs, leftovers, scripts });
        }
    }
    Ok(Exit::Success)
}

fn text(console: &mut Console, old: &Old, dry: bool, quiet: bool) {
    if !old.runs.is_empty() {
        let row = |run: &crate::domain::document::RunSummary| {
            let state = Cell::styled(run.state.as_str(), Style::of_run(run.state));
            let finished = run.finished_at.map(instant).unwrap_or_default();
            [run.run.to_string().into(), state, finished.into(), tally(&run.counts).into()]
        };
        let rows: Vec<[Cell<'_>; 4]> = old.runs.iter().map(row).collect();
        console.out(table(["RUN", "STATE", "FINISHED", "TASKS"], &rows, console.out_color()));
    }
    if !quiet {
        let done = if dry { "would remove" } else { "removed" };
        let left = match old.leftovers.len() {
            0 => String::new(),
            left => format!(", what was left of {}", number(left, "run")),
        };
        let (runs, scripts) = (number(old.runs.len(), "run"), number(old.scripts.len(), "script"));
        console.err(format!("{done} {runs}{left} and {scripts}\n"));
    }
}
