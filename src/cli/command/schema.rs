//! `sshjob schema`: Print the JSON Schema of job files.

use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::report::report;
use crate::domain::job::schema;

/// Print the JSON Schema of job files
///
/// Editors check and complete job files by it. Write it to a file, and name that in the first line of a job file:
/// `# yaml-language-server: $schema=<file>`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the schema.
///
/// # Errors
/// That it cannot be written.
#[expect(clippy::unused_async, reason = "every command is awaited")]
pub async fn run(_args: Args, global: Global) -> Result<Exit, Fail> {
    Ok(report(&format!("{:#}\n", schema::job_file()), &global))
}
