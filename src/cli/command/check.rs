//! `sshjob check`: Reach, authenticate, try sudo; run nothing.

use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};

/// Reach, authenticate, try sudo; run nothing
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
///
/// # Errors
/// What kept it from being done.
#[expect(clippy::unused_async, reason = "not built yet")]
pub async fn run(_args: Args, _global: Global) -> Result<Exit, Fail> {
    Err(Fail::usage("`check` is not built yet"))
}
