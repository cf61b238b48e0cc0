//! Flags to a request; results to text, JSON, progress and exit code.
//!
//! [`command`] has one file per command: its flags and what it does. [`output`] turns results into what people and
//! machines read; nothing else writes to standard output.

pub mod access;
pub mod aws;
pub mod command;
pub mod context;
pub mod detached;
pub mod dry_run;
pub mod exit;
pub mod flags;
pub mod keys;
pub mod known_hosts;
pub mod launch;
pub mod output;
pub mod pair;
pub mod passphrase;
pub mod post;
pub mod project;
pub mod select;
pub mod signals;
pub mod ssh_config;
pub mod store;
pub mod up;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let mut cli = Cli::parse();
    cli.global.aws = aws::Aws::new(cli.global.profile.as_deref(), &cli.global.region);
    trace(&cli.global);
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

/// Lets the program tell on standard error what it does, as much as is asked for; of its libraries nothing, for what
/// they tell in detail is what goes over the wire.
fn trace(global: &context::Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let told = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    tracing_subscriber::registry().with(told).with(Targets::new().with_target("sshjob", level)).init();
}
