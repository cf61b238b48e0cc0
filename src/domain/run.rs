//! What is written of a run: its claim, its plan, its batches, its verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{InstanceId, RunId};
use super::instance::AddressKind;
use super::job::{Hop, Job};
use super::location::Location;
use super::script::ScriptRef;
use super::task::{Counts, TaskRecord, TaskState};

/// The schema that every document names.
pub const SCHEMA: &str = "sshjob/v1";

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Claimed, not planned yet.
    Planning,
    /// Planned, some task not final.
    Running,
    /// No more tasks are started until it is resumed.
    Paused,
    /// Every task succeeded.
    Succeeded,
    /// Some task did not succeed.
    Failed,
    /// Someone asked for it to end.
    Cancelled,
    /// A policy kept it from running.
    Skipped,
}

impl RunState {
    /// Whether the state can never change again.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Planning | Self::Running | Self::Paused)
    }

    /// The state as documents spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// `run.json`: the claim. Created once; whoever creates it owns the firing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// The job as frozen: later edits do not touch this run.
    pub job: Job,
    /// The script as frozen.
    pub script: ScriptRef,
    /// Who asked for it.
    pub actor: String,
    /// The run whose tasks this one runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RunId>,
    /// The firing that it is, for a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// After this instant an unplanned run is not planned any more.
    pub plan_before: Timestamp,
    /// Who carries it to its verdict.
    #[serde(default, skip_serializing_if = "Carrier::is_caller")]
    pub carrier: Carrier,
    /// Why a policy keeps it from running: it is never planned then, and this is its verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The only instance that it runs on, where that one's start is what it answers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
}

/// Who carries a run to its verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// The process that asked for it. Where that dies, nothing more is started.
    #[default]
    Caller,
    /// A scheduler, each in turn: where one dies, the next goes on.
    Scheduler,
    /// Worker functions, which the trigger sends for at its ticks.
    Functions,
}

impl Carrier {
    /// Whether the process that asked for it carries it.
    pub fn is_caller(&self) -> bool {
        *self == Self::Caller
    }
}

/// `plan.json`: created once, after selection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How many targets each batch has, by number.
    pub batches: Vec<u32>,
    /// The waves in order; each is the numbers of its first batch and the one after its last.
    pub waves: Vec<(u32, u32)>,
    /// How many tasks run at a time.
    pub max_concurrency: u32,
    /// With more errors than this no more tasks are started; none means that errors stop nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_errors: Option<u32>,
    /// Why nothing was planned, and nothing ever will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// How a run ends that was never planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The state of its verdict.
    pub state: RunState,
    /// The reason.
    pub reason: String,
}

impl Plan {
    /// The plan of a run that comes to nothing.
    pub const fn sealed(sealed: Sealed) -> Self {
        Self { batches: Vec::new(), waves: Vec::new(), max_concurrency: 1, max_errors: None, sealed: Some(sealed) }
    }

    /// How many tasks the run has.
    pub fn total(&self) -> u32 {
        self.batches.iter().sum()
    }
}

/// Where one task connects to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The instance.
    pub instance: InstanceId,
    /// Its account.
    pub account: String,
    /// Its region.
    pub region: String,
    /// Its `Name` tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Host name or address to connect to; none where the instance has no address of the wanted kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Which of its addresses that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_kind: Option<AddressKind>,
    /// The SSH port.
    pub port: u16,
    /// The login user.
    pub user: String,
    /// The hosts to go through, in order; none means the job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<Vec<Hop>>,
    /// Private keys, in the order in which they are tried; empty means the job's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Location>,
}

/// `selected.<k>.json`: some of the targets that a run is planned with, in their order. Created once each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// The targets.
    pub targets: Vec<Target>,
    /// Whether these are the last.
    pub is_last: bool,
}

/// `batches/<n>.targets.json`: the tasks of one batch, in the order in which they start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchTargets {
    /// The tasks.
    pub targets: Vec<Target>,
}

/// `batches/<n>.claim`: who works on a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Names this claim and no other.
    pub nonce: String,
    /// From this instant on the claim may be taken over.
    pub expires_at: Timestamp,
    /// The process that holds it, where that is one of a machine that others can look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// How many have taken it before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A process, named so that no other process is ever taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine and the part of it in which process ids count: boot id and process namespace.
    pub machine: String,
    /// The process id.
    pub pid: u32,
    /// The process's start time in clock ticks since boot: a recycled id has another.
    pub started: u64,
}

/// `batches/<n>.json`: what has become of the tasks of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The nonce of the claim whose holder may write here. Whoever takes the claim over writes its own nonce first:
    /// the fence that stops the earlier holder at its next write.
    pub owner: String,
    /// What is known of each task; a task that is not listed is pending.
    pub tasks: BTreeMap<InstanceId, TaskRecord>,
}

/// `active/<job>/<run>`: the run is not finished; who drives it, where a process does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// The driver, on a machine without functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Claim>,
    /// The wave that is open, where worker functions carry the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<Wave>,
}

/// A wave whose batches may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Its number, from 0.
    pub number: u32,
    /// When its batches were first to be sent.
    pub opened_at: Timestamp,
}

/// `control.json`: what someone asked of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// No more tasks are started.
    pub paused: bool,
    /// Tasks are ended.
    pub cancelled: bool,
    /// Who asked last.
    pub actor: String,
}

impl Control {
    /// Whose wish a cancelled run's end is.
    pub fn cancelled_by(&self) -> String {
        format!("cancelled by {}", self.actor)
    }
}

/// `trouble.json`: what has last kept worker functions from the batches of a run; of several it is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When.
    pub at: Timestamp,
    /// Why, for people.
    pub why: String,
}

/// Which tasks of a run a retry runs again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// All of them.
    #[default]
    All,
    /// Those that did not succeed and are certainly over.
    Failed,
    /// Those, and the lost ones.
    Lost,
}

impl Again {
    /// Whether a task in the final state `state` is run again.
    pub const fn includes(self, state: TaskState) -> bool {
        match self {
            Self::All => true,
            Self::Failed => state.is_retried(),
            Self::Lost => state.is_retried() || matches!(state, TaskState::Lost),
        }
    }
}

/// `result.json`: the verdict. Created once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How the run ended.
    pub state: RunState,
    /// Why, where the counts do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many tasks ended in each state.
    pub counts: Counts,
    /// When the first task started; none where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Timestamp>,
    /// When the last task became final.
    pub finished_at: Timestamp,
}

impl Verdict {
    /// The verdict of a run of which nothing was planned.
    pub fn unplanned(state: RunState, reason: String, finished_at: Timestamp) -> Self {
        Self { state, reason: Some(reason), counts: Counts::default(), began_at: None, finished_at }
    }

    /// How long the run took from its first start: neither waiting for others counts nor being paused before it.
    pub fn took(&self) -> Duration {
        let took = self.began_at.map(|began| self.finished_at.duration_since(began));
        took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default()
    }
}

/// `trust/<account>/<region>/<instance>.json`: the host keys pinned for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The keys as OpenSSH writes them: `ssh-ed25519 AAAA…`.
    pub keys: Vec<String>,
    /// Where the first was seen, as `address:port`.
    pub address: String,
    /// When it was pinned.
    pub first_seen: Timestamp,
    /// How it came to be trusted: `first use` or `imported`.
    pub origin: String,
}
