//! Flags to a request; results to text, JSON, progress and exit code.
//!
//! [`command`] has one file per command: its flags and what it does. [`output`] turns results into what people and
//! machines read; nothing else writes to standard output.

pub mod access;
pub mod command;
pub mod context;
pub mod dry_run;
pub mod exit;
pub mod flags;
pub mod known_hosts;
pub mod launch;
pub mod output;
pub mod project;
pub mod select;
pub mod store;

use std::process::ExitCode;

use clap::Parser;

/// Runs scripts over SSH on every instance that a tag selects, on a schedule or now.
#[derive(Debug, Parser)]
#[command(name = "sshjob", version, max_term_width = 100)]
pub struct Cli {
    /// Settings that every command shares.
    #[command(flatten)]
    pub global: context::Global,
    /// What to do.
    #[command(subcommand)]
    pub command: command::Command,
}

/// Reads the command line, does what it says, and returns the process's exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::Fail::new(exit::Exit::Unavailable, format!("cannot start: {error}")).report(),
    };
    let code = runtime.block_on(cli.command.run(cli.global));
    // A blocked file or name look-up must not hold the process back once everything is said.
    runtime.shutdown_background();
    match code {
        Ok(exit) => exit.into(),
        Err(fail) => fail.report(),
    }
}
