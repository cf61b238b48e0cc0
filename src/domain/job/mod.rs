//! A job with every default filled in: what is frozen into a run.
//!
//! A job file is read by [`file`](mod@file) and [`read`], layered with what flags, environment and project say by
//! [`settings`], and completed by [`resolve`](mod@resolve); [`schema`](mod@schema) tells editors what it may hold.

pub mod file;
pub mod notify;
pub mod read;
pub mod resolve;
pub mod schema;
pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::id::JobName;
use super::instance::AddressKind;
use super::location::Location;
use super::quantity::{Amount, ByteSize, Span};
use super::selector::Selector;

pub use notify::{Notify, NotifyOn};

/// A job, complete: nothing is left to defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Identifies the job.
    pub name: JobName,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it fires by itself.
    pub schedule: Schedule,
    /// Which instances it runs on.
    pub targets: Targets,
    /// What it runs.
    pub source: Source,
    /// Arguments of the script, byte for byte.
    pub args: Vec<String>,
    /// Configuration that the script sees in its environment.
    pub env: BTreeMap<String, String>,
    /// Secrets that the script sees in its environment: where they are, never what they are.
    pub secrets: BTreeMap<String, SecretRef>,
    /// How to log in.
    pub login: Login,
    /// Whom to become on the host.
    pub sudo: Sudo,
    /// Whether the process ends with the channel.
    pub mode: Mode,
    /// Longest time that the script may run on one host.
    pub timeout: Span,
    /// The exit statuses that count as success.
    pub ok_exit_codes: BTreeSet<u8>,
    /// How much of each output stream of a task is kept.
    pub max_output: ByteSize,
    /// What is tried again.
    pub retries: Retries,
    /// How the run spreads over its hosts.
    pub rollout: Rollout,
    /// How many hosts one worker invocation is handed.
    pub hosts_per_worker: u32,
    /// Who is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Box<Notify>>,
}

/// When a job fires by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The expressions; none means on demand only.
    pub expressions: Vec<String>,
    /// IANA name of the time zone that they are read in.
    pub timezone: String,
    /// A stable delay per job, at most this.
    pub jitter: Span,
    /// Whether firings are suspended.
    pub paused: bool,
    /// Local date(-time) ranges without firings, as written.
    pub blackout: Vec<String>,
    /// Events that also fire the job.
    pub on: Vec<Event>,
    /// What a firing does while an earlier run is active.
    pub overlap: Overlap,
    /// What becomes of firings that nobody was awake for.
    pub missed: Missed,
    /// A firing later than this is missed, not late.
    pub deadline: Span,
}

/// An event that fires a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// An instance that the selector matches has come to run.
    InstanceRunning,
}

/// What a firing does while an earlier run of the job is active, be it a firing or one that somebody asked for.
///
/// Who asks for a run has it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is skipped, and that is recorded.
    Skip,
    /// It waits for the earlier run to end.
    Queue,
    /// The earlier run is cancelled.
    Replace,
    /// Both run.
    Allow,
}

/// What becomes of firings that nobody was awake for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// None is made up for.
    Skip,
    /// The latest is made up for.
    Latest,
    /// All are made up for.
    All,
}

/// Which instances a job runs on, and where they are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// What chooses them.
    pub selector: Selector,
    /// The AWS regions to look in; none means the SDK's.
    pub regions: Vec<String>,
    /// Which address to connect to; none means private, else public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressKind>,
}

/// What a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A script file; relative to the project's folder.
    Script(PathBuf),
    /// The text of a script.
    Run(String),
    /// A program and its arguments, run as they are, without a shell reading them.
    Command(Vec<String>),
}

impl Source {
    /// Where it comes from, for people.
    pub fn origin(&self) -> String {
        match self {
            Self::Script(path) => path.display().to_string(),
            Self::Run(_) => "run".to_owned(),
            Self::Command(_) => "command".to_owned(),
        }
    }
}

/// Where a secret is found when the task starts: `env:NAME`, `file:PATH` or `ssm:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretRef {
    /// A variable of the worker's environment.
    Env(String),
    /// A file that the worker reads.
    File(PathBuf),
    /// A parameter of the AWS Systems Manager parameter store.
    Ssm(String),
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user name, or the tag that holds it.
    pub user: User,
    /// The port, where the inventory names none.
    pub port: u16,
    /// Private keys, in the order in which they are tried.
    pub keys: Vec<Location>,
    /// Hosts to go through, in order.
    pub jump: Vec<Hop>,
    /// TCP, SSH handshake and authentication together.
    pub connect_timeout: Span,
    /// How a host key comes to be trusted.
    pub host_key: HostKeyPolicy,
    /// Whose host certificates [`HostKeyPolicy::Ca`] believes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ca: Vec<Authority>,
}

/// The login user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum User {
    /// The same on every host.
    Name(String),
    /// Told by a tag of the instance.
    Tag {
        /// The tag's key.
        tag: String,
        /// The user where the tag is absent.
        default: String,
    },
}

/// A host to go through: `[user@]host[:port]`, or `{ host: [user@]host[:port], key: FILE }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HopForm", into = "HopForm")]
pub struct Hop {
    /// The user there; none means the job's.
    pub user: Option<String>,
    /// Host name or address.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Private keys for it, in the order in which they are tried; empty means the job's.
    pub keys: Vec<Location>,
}

/// How a hop is written: as one word, or as a map where it has keys of its own.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum HopForm {
    Word(String),
    Map { host: String, key: Vec<Location> },
}

impl TryFrom<HopForm> for Hop {
    type Error = InvalidReference;
    fn try_from(form: HopForm) -> Result<Self, InvalidReference> {
        match form {
            HopForm::Word(host) => host.try_into(),
            HopForm::Map { host, key } => Ok(Self { keys: key, ..host.try_into()? }),
        }
    }
}

impl From<Hop> for HopForm {
    fn from(hop: Hop) -> Self {
        match hop.keys.clone() {
            keys if keys.is_empty() => Self::Word(hop.to_string()),
            key => Self::Map { host: hop.to_string(), key },
        }
    }
}

/// How a host key comes to be trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostKeyPolicy {
    /// The first key seen for an instance is pinned; a later difference is rejected.
    #[default]
    Pinned,
    /// Only known or imported keys.
    Strict,
    /// Only host certificates of a given authority.
    Ca,
    /// Any key. Must be typed out, and is recorded on the run.
    Off,
}

/// Whom to become on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sudo {
    /// Nobody else.
    No,
    /// The super-user.
    Root,
    /// This user.
    User(String),
}

impl Sudo {
    /// The user to become; none where it is to stay the login user.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::No => None,
            Self::Root => Some("root"),
            Self::User(user) => Some(user),
        }
    }
}

/// Whether the process ends with the SSH channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It ends with the channel.
    Attached,
    /// It outlives the channel under a supervisor on the host.
    Detached {
        /// As a transient systemd unit.
        unit: bool,
        /// How long its directory is kept on the host.
        keep: Span,
    },
}

impl Mode {
    /// Whether the process outlives the channel.
    pub const fn is_detached(&self) -> bool {
        matches!(self, Self::Detached { .. })
    }
}

/// What is tried again, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// The pause between two attempts.
    pub delay: Span,
    /// After which ends another attempt is made.
    pub on: Vec<RetryOn>,
}

/// An end after which another attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// Nothing started.
    Unreachable,
    /// The script ended with a status that is not accepted.
    Failed,
    /// The script ran too long and was ended.
    TimedOut,
}

impl RetryOn {
    /// The end as job files spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// How a run spreads over its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// How many tasks run at a time.
    pub max_concurrency: Amount,
    /// How many tasks may end without success before no more are started; none means all may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_errors: Option<Amount>,
    /// How many hosts go first, alone.
    pub canary: Amount,
}

/// Why a reference was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {what}: {allowed}")]
pub struct InvalidReference {
    what: &'static str,
    found: String,
    allowed: &'static str,
}

impl TryFrom<String> for SecretRef {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        let known = match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Some(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Some(Self::File(path.into())),
            Some(("ssm", path)) if path.starts_with('/') => Some(Self::Ssm(path.to_owned())),
            _ => None,
        };
        known.ok_or(InvalidReference {
            what: "a reference to a secret",
            found: text,
            allowed: "`env:NAME`, `file:PATH` or `ssm:/path`",
        })
    }
}

impl From<SecretRef> for String {
    fn from(secret: SecretRef) -> Self {
        match secret {
            SecretRef::Env(name) => format!("env:{name}"),
            SecretRef::File(path) => format!("file:{}", path.display()),
            SecretRef::Ssm(path) => format!("ssm:{path}"),
        }
    }
}

impl TryFrom<String> for Hop {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        let refuse = || InvalidReference {
            what: "a jump host",
            found: text.clone(),
            allowed: "`[user@]host[:port]`, an IPv6 address in brackets",
        };
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) if !user.is_empty() => (Some(user.to_owned()), rest),
            Some(_) => return Err(refuse()),
            None => (None, text.as_str()),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, "22"),
            Some((host, port)) => (host, port.strip_prefix(':').ok_or_else(refuse)?),
            None => rest.split_once(':').unwrap_or((rest, "22")),
        };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(refuse)?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(refuse());
        }
        Ok(Self { user, host: host.to_owned(), port, keys: Vec::new() })
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match (self.host.contains(':'), self.port) {
            (false, 22) => f.write_str(&self.host),
            (true, 22) => write!(f, "[{}]", self.host),
            (false, port) => write!(f, "{}:{port}", self.host),
            (true, port) => write!(f, "[{}]:{port}", self.host),
        }
    }
}
