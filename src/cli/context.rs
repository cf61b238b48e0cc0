//! Settings that every command shares.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::aws::Aws;

/// When to use colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The form of results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One document at the end.
    Json,
    /// One object per event, as it happens.
    Ndjson,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "a flag's documentation is its help text, which is not Markdown")]
pub struct Global {
    /// The project's folder: where `sshjob.yaml`, `jobs/` and `scripts/` are [default: the nearest folder upwards that has one]
    #[arg(short = 'C', long, global = true, value_name = "DIR", env = "SSHJOB_PROJECT")]
    pub project: Option<PathBuf>,
    /// Where runs live: a directory, or s3://bucket/prefix [default: $XDG_STATE_HOME/sshjob]
    #[arg(long, global = true, value_name = "STORE", env = "SSHJOB_STORE")]
    pub store: Option<String>,
    /// AWS profile: who we are there, and in which region
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS regions to look for hosts in [default: the SDK's]; the first is where the functions are, too
    #[arg(long, global = true, value_name = "REGION[,REGION]", value_delimiter = ',')]
    pub region: Vec<String>,
    /// The form of results
    #[arg(short, long, global = true, value_enum, default_value_t, env = "SSHJOB_OUTPUT")]
    pub output: Format,
    /// Say less: no progress, no summary
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; repeat for more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Whether the store goes with this command: then there is nothing to come back to, and no hint says so.
    #[arg(skip)]
    pub fleeting: bool,
    /// Whether the settings of the environment are passed over: the demo's hosts can be reached in one way only.
    #[arg(skip)]
    pub deaf: bool,
    /// AWS, as the two flags say.
    #[arg(skip)]
    pub aws: Aws,
}
