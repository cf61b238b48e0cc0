//! `sshjob pause`: Start no more tasks of a run.

use crate::adapter::store::AnyStore;
use crate::cli::access::actor;
use crate::cli::command::status;
use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::store;
use crate::domain::id::RunId;
use crate::engine::control;
use crate::engine::records::Runs;

/// Start no more tasks of a run until it is resumed; those that run go on
///
/// Whoever drives the run hears of it within 5 s. Shows the run as `sshjob status` does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning of it, or `last`
    run: String,
}

/// Does it.
///
/// # Errors
/// That the run is over, or what kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let runs = store::open_here(&global).await?;
    let run = unfinished(&runs, &args.run, "paused", &global).await?;
    control::pause(&runs, &run, &actor()).await?;
    show(&runs, &run, &global).await
}

/// Finds the run that a person calls `name`, which is not over.
///
/// # Errors
/// That it is, or that there is none.
pub(super) async fn unfinished(runs: &Runs<AnyStore>, name: &str, done: &str, global: &Global) -> Result<RunId, Fail> {
    let run = store::find(runs, name).await?;
    match status::current(runs, &run, &mut Console::new(global.color)).await?.verdict {
        None => Ok(run),
        Some(verdict) => {
            let state = verdict.state.as_str();
            Err(Fail::usage(format!("run `{run}` is over: {state}; only one that is not can be {done}")))
        }
    }
}

/// Shows `run` as it stands now.
///
/// # Errors
/// Where it cannot be read.
pub(super) async fn show(runs: &Runs<AnyStore>, run: &RunId, global: &Global) -> Result<Exit, Fail> {
    let shown = status::Args { run: run.to_string(), wait: false };
    status::show(&shown, global.output, None, runs, &mut Console::new(global.color)).await?;
    Ok(Exit::Success)
}
