//! `sshjob init`: Create a project skeleton.

use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};

/// Create a project skeleton
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
///
/// # Errors
/// What kept it from being done.
#[expect(clippy::unused_async, reason = "not built yet")]
pub async fn run(_args: Args, _global: Global) -> Result<Exit, Fail> {
    Err(Fail::usage("`init` is not built yet"))
}
