//! `sshjob runs`: List runs, newest first.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::output::json;
use crate::cli::output::table::{Cell, table};
use crate::cli::output::words::{Style, elapsed, instant, tally};
use crate::cli::store;
use crate::domain::document::{RunList, RunSummary, Schema};
use crate::domain::id::JobName;
use crate::domain::quantity::Span;
use crate::engine::clock::Clock;
use crate::engine::history::{list, refresh, summary};
use crate::engine::records::Runs;
use crate::port::Store;

/// How many unfinished runs are looked at for what a dead process left behind: a look takes some reads, and more are
/// hardly ever under way.
const SETTLED_AT_MOST: usize = 100;

/// List runs, newest first
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the runs of this job
    #[arg(value_name = "JOB")]
    pub job: Option<JobName>,
    /// Only runs that started since then: 2h, 7d, 2026-11-22 or 2026-11-22T08:00:00Z (dates are UTC)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// At most this many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub number: usize,
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let runs = store::open_here(&global).await?;
    show(&args, global.output, &runs, &mut Console::new(global.color), Clock::System.now()).await
}

/// Lists what is in `runs`, as seen at `now`.
///
/// # Errors
/// What kept it from being done.
pub async fn show<S: Store>(
    args: &Args,
    format: Format,
    runs: &Runs<S>,
    console: &mut Console,
    now: Timestamp,
) -> Result<Exit, Fail> {
    let since = args.since.as_deref().map(|text| read_since(text, now)).transpose()?;
    let mut summaries: Vec<RunSummary> = Vec::new();
    let mut settling = SETTLED_AT_MOST;
    for mut listed in list(runs, args.job.as_ref(), since, args.number).await? {
        if settling > 0 && listed.summary.as_ref().is_ok_and(|run| !run.state.is_final()) {
            settling -= 1;
            if let Err(error) = refresh(runs, &listed.run, now).await {
                // Who may only read may still look.
                console.err_once(format!("warning: cannot settle what is left of `{}`: {error}\n", listed.run));
            }
            if let Some(summary) = summary(runs, &listed.run).await.transpose() {
                listed.summary = summary;
            }
        }
        match listed.summary {
            Ok(summary) => summaries.push(summary),
            Err(error) => console.err(format!("warning: {}\n", Fail::from(error).message)),
        }
    }
    match format {
        Format::Text if summaries.is_empty() => console.err("no runs\n"),
        Format::Text => {
            let rows: Vec<_> = summaries.iter().map(row).collect();
            let header = ["RUN", "STATE", "STARTED", "TOOK", "TASKS", "BY", "REASON"];
            console.out(table(header, &rows, console.out_color()));
        }
        Format::Json => json::line(console, &RunList { schema: Schema::V1, runs: summaries }),
        Format::Ndjson => summaries.iter().for_each(|run| json::line(console, run)),
    }
    Ok(Exit::Success)
}

fn row(run: &RunSummary) -> [Cell<'_>; 7] {
    let clean = crate::cli::output::lines::clean;
    [
        run.run.to_string().into(),
        Cell::styled(run.state.as_str(), Style::of_run(run.state)),
        instant(run.started_at).into(),
        run.took().map(elapsed).unwrap_or_default().into(),
        tally(&run.counts).into(),
        clean(&run.actor).into(),
        run.reason.as_deref().map(clean).unwrap_or_default().into(),
    ]
}

/// Reads a time that people give: a span before `now`, a date or an instant.
fn read_since(text: &str, now: Timestamp) -> Result<Timestamp, Fail> {
    let before = |span: Span| now.checked_sub(SignedDuration::try_from(span.0).ok()?).ok();
    let date = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp());
    let parsed = text.parse::<Timestamp>().ok();
    let parsed = parsed.or_else(|| text.parse::<Span>().ok().and_then(before));
    // A date-time without a zone would parse as a date, and its time would be lost.
    let parsed = parsed.or_else(|| text.parse::<Date>().ok().filter(|_| text.len() <= 10).and_then(date));
    parsed.ok_or_else(|| {
        let found = crate::cli::output::lines::clean(text);
        Fail::usage(format!(
            "`{found}` is not a time: a span (`2h`, `7d`), a date (`2026-11-22`) or an instant (`2026-11-22T08:00:00Z`)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_reads_spans_dates_and_instants() {
        let now: Timestamp = "2026-11-22T22:15:00Z".parse().unwrap();
        let since = |text: &str| read_since(text, now).map(|at| at.to_string());
        assert_eq!(since("2h").unwrap(), "2026-11-22T20:15:00Z");
        assert_eq!(since("7d").unwrap(), "2026-11-15T22:15:00Z");
        assert_eq!(since("2026-11-20").unwrap(), "2026-11-20T00:00:00Z");
        assert_eq!(since("2026-11-20T08:00:00+01:00").unwrap(), "2026-11-20T07:00:00Z");
        for bad in ["", "yesterday", "-2h", "2026-11-20T08:00:00", "2026-13-01"] {
            assert_eq!(since(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
