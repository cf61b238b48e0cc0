//! `sshjob completions`: Print shell completions.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::report::report;

/// Print shell completions
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions.
///
/// # Errors
/// That they cannot be written.
#[expect(clippy::unused_async, reason = "every command is awaited")]
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    // Into memory first: the generator panics where it cannot write, as into a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sshjob", &mut script);
    Ok(report(&String::from_utf8_lossy(&script), &global))
}
