//! `sshjob logs`: Show a run's output.

use std::ops::RangeInclusive;

use crate::cli::context::{Format, Global};
use crate::cli::detached::Care;
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::output::copy::{copy, is_silent, marked, warn_if_cut};
use crate::cli::output::json::{self, Listing};
use crate::cli::output::lines::{Lines, clean};
use crate::cli::output::words::{Style, number};
use crate::cli::pair::hasten;
use crate::cli::store;
use crate::domain::diagnostic::nearest;
use crate::domain::document::{OutputDocument, Schema};
use crate::domain::id::RunId;
use crate::domain::layout::Stream;
use crate::domain::run::Target;
use crate::domain::selector::Mention;
use crate::engine::history::{RunView, Task, kept};
use crate::engine::pieces::{Piece, Pieces};
use crate::engine::records::Runs;
use crate::port::Store;

use super::follow::follow;
use super::status::current;

/// Show a run's output
#[derive(Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Args {
    /// The run: its id, the beginning of it, or `last`
    #[arg(value_name = "RUN", default_value = "last")]
    pub run: String,
    /// Only of these hosts: ids, names or addresses, with `*` and `?`, or hosts as `-w` names them
    #[arg(long = "host", value_name = "H", value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// Keep on showing what comes, until the run is finished
    #[arg(short, long)]
    pub follow: bool,
    /// Only standard output
    #[arg(long)]
    pub stdout: bool,
    /// Only standard error; it then goes to our standard output
    #[arg(long)]
    pub stderr: bool,
    /// Of every attempt, not of the last alone
    #[arg(long)]
    pub all_attempts: bool,
    /// The bytes of one host as they are
    #[arg(long, requires = "hosts", conflicts_with = "follow")]
    pub raw: bool,
}

impl Args {
    /// Which streams are shown, and where each goes. One that is asked for alone is the result.
    pub fn streams(&self) -> Vec<(Stream, Stream)> {
        match (self.stdout, self.stderr) {
            (true, false) => vec![(Stream::Out, Stream::Out)],
            (false, true) => vec![(Stream::Err, Stream::Out)],
            _ => vec![(Stream::Out, Stream::Out), (Stream::Err, Stream::Err)],
        }
    }
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let runs = store::open_here(&global).await?;
    let run = store::find(&runs, &args.run).await?;
    let mut console = Console::new(global.color);
    let view = current(&runs, &run, &mut console).await?;
    let care = match Care::of(&runs, &run, &global).await {
        Ok(care) => Ok(care),
        Err(fail) => {
            console.err(format!("warning: the hosts are not asked: {}\n", fail.message));
            Err(())
        }
    };
    if !args.follow {
        if let Ok(Some(care)) = &care {
            care.catch_up().await?;
        }
        let exit = show(&args, global.output, &runs, &mut console).await?;
        let is_missed = |task: &&&Task| match &care {
            Ok(care) => care.as_ref().is_some_and(|care| care.has_missed(&task.target.instance)),
            Err(()) => !task.record.state.is_final(),
        };
        return match choose(&view, &args.hosts)?.iter().filter(is_missed).count() {
            0 => Ok(exit),
            missed => {
                let hosts = number(missed, "host");
                let why = format!("{hosts} could not be asked: this may not be all of the output");
                Err(Fail::new(Exit::Unavailable, why))
            }
        };
    }
    // Whoever follows waits for the end.
    let waits_for = Some(&view.record);
    let Ok(Some(care)) = care else {
        return hasten(waits_for, &global, show(&args, global.output, &runs, &mut console)).await;
    };
    // One fetches what the other shows.
    let mut fetching = tokio::spawn(async move { care.watch(None).await });
    let failed = async {
        match (&mut fetching).await {
            Ok(Err(fail)) => fail,
            // What is left is to show it.
            _ => std::future::pending().await,
        }
    };
    let shown = tokio::select! {
        shown = hasten(waits_for, &global, show(&args, global.output, &runs, &mut console)) => shown,
        fail = failed => Err(fail),
    };
    fetching.abort();
    shown
}

/// Shows output that is in `runs`.
///
/// # Errors
/// What kept it from being done; also that some of the output is missing.
pub async fn show<S: Store>(args: &Args, format: Format, runs: &Runs<S>, console: &mut Console) -> Result<Exit, Fail> {
    let run = store::find(runs, &args.run).await?;
    let view = current(runs, &run, console).await?;
    let wanted = choose(&view, &args.hosts)?;
    if args.raw && wanted.len() != 1 {
        return Err(Fail::usage(format!("`--raw` shows one host; {} match", wanted.len())));
    }
    if args.follow {
        if format != Format::Text {
            let why = "`--follow` shows text; `-o json` and `-o ndjson` show what there is, without it";
            return Err(Fail::usage(why));
        }
        let named = wanted.iter().filter(|_| !args.hosts.is_empty());
        let hosts = named.map(|task| task.target.instance.clone()).collect();
        return follow(args, &run, &hosts, runs, console).await;
    }
    let mut form = match format {
        Format::Text => Form::Text,
        Format::Json => Form::Json(Listing::of("output")),
        Format::Ndjson => Form::Ndjson,
    };
    let mut whole = true;
    for task in wanted {
        for attempt in attempts(&view, task, args.all_attempts) {
            for (stream, to) in args.streams() {
                let last = attempt == task.record.attempt;
                if !console.is_open() || last && is_silent(&task.record, stream) {
                    continue;
                }
                let source = Source { run: &run, task, attempt, stream };
                let pieces = Pieces::new(runs, &run, &task.target.instance, attempt, stream);
                let expected = kept(&task.record, stream, view.record.job.max_output).filter(|_| last);
                whole &= match &mut form {
                    Form::Text => {
                        let whole = copy(pieces, expected, source.lines(args, to, console), console, to).await?;
                        if last {
                            let host = task.target.instance.as_str();
                            warn_if_cut(console, host, &task.record, stream, view.record.job.max_output);
                        }
                        whole
                    }
                    form => source.documents(pieces, expected, form, console).await?,
                };
            }
        }
    }
    if let Form::Json(list) = form {
        list.finish(console, &serde_json::json!({ "run": run, "schema": Schema::V1 }));
    }
    if whole { Ok(Exit::Success) } else { Err(Fail::new(Exit::Unavailable, "some of the output is missing")) }
}

/// The form that output takes.
enum Form {
    Text,
    Json(Listing),
    Ndjson,
}

/// One stream of one attempt.
pub struct Source<'a> {
    /// The run.
    pub run: &'a RunId,
    /// The task.
    pub task: &'a Task,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Which stream.
    pub stream: Stream,
}

impl Source<'_> {
    /// The stream's lines, as they are written to `to`.
    pub fn lines(&self, args: &Args, to: Stream, console: &Console) -> Lines {
        let (color, terminal) = match to {
            Stream::Out => (console.out_color(), console.out_is_terminal()),
            Stream::Err => (console.err_color(), console.err_is_terminal()),
        };
        if args.raw {
            return Lines::raw();
        }
        let instance = &self.task.target.instance;
        let host = match self.attempt {
            attempt if args.all_attempts && self.task.record.attempt > 1 => format!("{instance} (attempt {attempt})"),
            _ => instance.to_string(),
        };
        marked(&host, self.stream, Style::of_task(self.task.record.state), color, terminal)
    }

    /// Writes the stream's pieces as documents. Returns whether nothing was missing.
    async fn documents<S: Store>(
        &self,
        mut pieces: Pieces<'_, S>,
        expected: Option<u64>,
        form: &mut Form,
        console: &mut Console,
    ) -> Result<bool, Fail> {
        let mut whole = true;
        while console.is_open() {
            let piece = pieces.next().await?.or_else(|| pieces.missing(expected?));
            let Some(piece) = piece else { break };
            let document = self.document(&piece);
            whole &= !document.missing;
            match form {
                Form::Json(list) => list.item(console, &document),
                _ => json::line(console, &document),
            }
        }
        Ok(whole)
    }

    fn document(&self, piece: &Piece) -> OutputDocument {
        let (offset, bytes, text, missing) = match piece {
            // Every piece is complete in itself: its text is not cut where a document of a task would cut it.
            Piece::Bytes { offset, bytes } => {
                (*offset, bytes.len() as u64, String::from_utf8_lossy(bytes).into_owned(), false)
            }
            Piece::Missing { from, to } => (*from, to.saturating_sub(*from), String::new(), true),
        };
        OutputDocument {
            schema: Schema::V1,
            run: self.run.clone(),
            instance: self.task.target.instance.clone(),
            attempt: self.attempt,
            stream: self.stream,
            offset,
            bytes,
            text,
            missing,
        }
    }
}

/// The attempts of `task` that are shown; 0 where there was none.
pub fn attempts(view: &RunView, task: &Task, all: bool) -> RangeInclusive<u32> {
    let last = task.record.attempt;
    // Never more than the job allows, whatever a record says.
    let earlier = if all { view.record.job.retries.attempts.saturating_sub(1) } else { 0 };
    last.saturating_sub(earlier).max(1).min(last)..=last
}

/// The tasks on the hosts that are asked for; all where none are.
fn choose<'a>(view: &'a RunView, hosts: &[String]) -> Result<Vec<&'a Task>, Fail> {
    let mentions: Vec<Mention> = hosts.iter().map(|host| Mention::new(host)).collect();
    let matches = |mention: &Mention, target: &Target| {
        let names = [Some(target.instance.as_str()), target.name.as_deref(), target.address.as_deref()];
        mention.matches(names.into_iter().flatten())
            || target.address.as_deref().is_some_and(|address| mention.is_at(address, target.port))
    };
    for (host, mention) in hosts.iter().zip(&mentions) {
        if view.tasks.iter().any(|task| matches(mention, &task.target)) {
            continue;
        }
        let run = &view.record.run;
        let fail = Fail::usage(format!("run `{run}` has no host `{}`", clean(host)));
        let known = view.tasks.iter().map(|task| task.target.instance.as_str());
        return Err(match nearest(host, known) {
            Some(near) => fail.hint(format!("`{near}` is the most similar; `sshjob status {run}` lists all")),
            None => fail.hint(format!("`sshjob status {run}` lists all")),
        });
    }
    let wanted = |task: &&Task| hosts.is_empty() || mentions.iter().any(|mention| matches(mention, &task.target));
    Ok(view.tasks.iter().filter(wanted).collect())
}
