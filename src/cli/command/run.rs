//! `sshjob run`: Run a job, a command or a script now.

use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};

/// Run a job, a command or a script now
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
///
/// # Errors
/// What kept it from being done.
#[expect(clippy::unused_async, reason = "not built yet")]
pub async fn run(_args: Args, _global: Global) -> Result<Exit, Fail> {
    Err(Fail::usage("`run` is not built yet"))
}
