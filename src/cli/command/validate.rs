//! `sshjob validate`: Check job files and the project file.

use std::path::PathBuf;

use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::output::json;
use crate::cli::output::report::report;
use crate::cli::project::{JOBS_FOLDER, Workspace, refuse, shown};
use crate::domain::document::{Schema, ValidateDocument};

/// Check job files and the project file
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Job files [default: all of the project]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Tells everything that is wrong with the files, or that nothing is.
///
/// # Errors
/// What is wrong.
#[expect(clippy::unused_async, reason = "every command is awaited")]
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let (workspace, mut wrong) = Workspace::survey(&global)?;
    let files = if args.files.is_empty() { workspace.job_paths()? } else { args.files };
    if files.is_empty() && wrong.is_empty() {
        let folder = shown(&workspace.root.join(JOBS_FOLDER));
        return Err(Fail::usage(format!("there are no job files in `{folder}`"))
            .hint("`sshjob init` creates a project with a first job"));
    }
    let (jobs, found) = workspace.read_jobs(&files);
    wrong.extend(found);
    if global.output != Format::Text {
        wrong.sort();
        wrong.dedup();
        let exit = if wrong.is_empty() { Exit::Success } else { Exit::Usage };
        let errors = wrong.into_iter().map(Into::into).collect();
        let mut console = Console::new(global.color);
        json::line(&mut console, &ValidateDocument { schema: Schema::V1, jobs: jobs.len(), errors });
        return Ok(if console.has_failed() { Exit::Unavailable } else { exit });
    }
    if !wrong.is_empty() {
        return Err(refuse(wrong));
    }
    let noun = if jobs.len() == 1 { "job" } else { "jobs" };
    Ok(if global.quiet { Exit::Success } else { report(&format!("{} {noun} valid\n", jobs.len()), &global) })
}
