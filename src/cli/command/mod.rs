//! One file per command: its flags, and what it does.

pub mod cancel;
pub mod check;
pub mod completions;
pub mod config;
pub mod demo;
mod follow;
pub mod hosts;
pub mod init;
pub mod jobs;
pub mod logs;
pub mod next;
pub mod pause;
pub mod prune;
pub mod push;
pub mod resume;
pub mod retry;
pub mod run;
pub mod runs;
pub mod schema;
pub mod status;
pub mod trust;
pub mod up;
pub mod validate;

use clap::Subcommand;

use super::context::Global;
use super::exit::{Exit, Fail};

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each variant is told by its arguments' own documentation, which is its help text")]
pub enum Command {
    Run(Box<run::Args>),
    Check(Box<check::Args>),
    Jobs(jobs::Args),
    Validate(validate::Args),
    Next(next::Args),
    Hosts(hosts::Args),
    Runs(runs::Args),
    Status(status::Args),
    Logs(logs::Args),
    Cancel(cancel::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Retry(retry::Args),
    Up(up::Args),
    Trust(trust::Args),
    Push(push::Args),
    Prune(prune::Args),
    Demo(demo::Args),
    Init(init::Args),
    Schema(schema::Args),
    Config(config::Args),
    Completions(completions::Args),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What kept it from being done, with the exit code.
    pub async fn run(self, global: Global) -> Result<Exit, Fail> {
        match self {
            Self::Run(args) => Box::pin(run::run(*args, global)).await,
            Self::Check(args) => check::run(*args, global).await,
            Self::Jobs(args) => jobs::run(args, global).await,
            Self::Validate(args) => validate::run(args, global).await,
            Self::Next(args) => next::run(args, global).await,
            Self::Hosts(args) => hosts::run(args, global).await,
            Self::Runs(args) => runs::run(args, global).await,
            Self::Status(args) => status::run(args, global).await,
            Self::Logs(args) => logs::run(args, global).await,
            Self::Cancel(args) => cancel::run(args, global).await,
            Self::Pause(args) => pause::run(args, global).await,
            Self::Resume(args) => resume::run(args, global).await,
            Self::Retry(args) => Box::pin(retry::run(args, global)).await,
            Self::Up(args) => up::run(args, global).await,
            Self::Trust(args) => trust::run(args, global).await,
            Self::Push(args) => push::run(args, global).await,
            Self::Prune(args) => prune::run(args, global).await,
            Self::Demo(args) => demo::run(args, global).await,
            Self::Init(args) => init::run(args, global).await,
            Self::Schema(args) => schema::run(args, global).await,
            Self::Config(args) => config::run(args, global).await,
            Self::Completions(args) => completions::run(args, global).await,
        }
    }
}
