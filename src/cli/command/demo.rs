//! `sshjob demo`: Show the whole system on an embedded fleet.

use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};

/// Show the whole system on an embedded fleet
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
///
/// # Errors
/// What kept it from being done.
#[expect(clippy::unused_async, reason = "not built yet")]
pub async fn run(_args: Args, _global: Global) -> Result<Exit, Fail> {
    Err(Fail::usage("`demo` is not built yet"))
}
