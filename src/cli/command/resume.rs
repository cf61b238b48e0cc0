//! `sshjob resume`: Go on with a run that is paused.

use crate::cli::access::actor;
use crate::cli::command::pause;
use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};
use crate::cli::store;
use crate::engine::control;

/// Go on with a run that is paused
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
    let run = pause::unfinished(&runs, &args.run, "resumed", &global).await?;
    control::resume(&runs, &run, &actor()).await?;
    pause::show(&runs, &run, &global).await
}
