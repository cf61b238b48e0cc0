//! One run on one instance: its states, and the record that is kept of it.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a task stands. Each task is in exactly one state; final states never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not started yet.
    Pending,
    /// The started intent is durable; the script may be running.
    Running,
    /// Ended with a status that the job accepts.
    Succeeded,
    /// Ended with a status that is not in `ok_exit_codes`, or by a signal.
    Failed,
    /// Ran longer than `timeout` and was ended.
    TimedOut,
    /// Never started: no connection, no channel, or the delivery was cut off.
    Unreachable,
    /// Never started: the host refused every key.
    AuthFailed,
    /// Never started: the host key is not the one that is trusted.
    HostKeyRejected,
    /// Ended or not started because someone asked for it.
    Cancelled,
    /// Never started, for the reason given.
    Skipped,
    /// Started or possibly started, outcome unknown.
    Lost,
}

impl TaskState {
    /// Every state, in the order in which summaries list them.
    pub const ALL: [Self; 11] = [
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Unreachable,
        Self::AuthFailed,
        Self::HostKeyRejected,
        Self::Lost,
        Self::Cancelled,
        Self::Skipped,
        Self::Running,
        Self::Pending,
    ];

    /// Whether the state can never change again.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// Whether a person's `retry --failed` runs the task again: it did not succeed, and it is certainly over.
    pub const fn is_retried(self) -> bool {
        self.is_final() && !matches!(self, Self::Succeeded | Self::Lost)
    }

    /// The state as documents spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::AuthFailed => "auth_failed",
            Self::HostKeyRejected => "host_key_rejected",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is known of a task. Sizes are in bytes and count what the host sent, also beyond `max_output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Where the task stands.
    pub state: TaskState,
    /// Why, in a few words: for `lost` one of `rebooted`, `killed`, `vanished`, `connection`, `worker`, after which a
    /// colon and more may follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The exit status of the script, where it ended with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u32>,
    /// The signal that ended the script, as `TERM` or `KILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The number of the attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// How that attempt ended, while the task waits for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<TaskState>,
    /// When the started intent was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the first attempt started, where that was an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_started_at: Option<Timestamp>,
    /// When the task became final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Bytes that the script wrote to its standard output.
    #[serde(default)]
    pub stdout_bytes: u64,
    /// Bytes that the script wrote to its standard error.
    #[serde(default)]
    pub stderr_bytes: u64,
    /// Whether output was dropped, as all beyond `max_output` is.
    #[serde(default)]
    pub truncated: bool,
    /// Of [`Self::stdout_bytes`], those that the host of a detached script could not store, where it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_unstored: Option<u64>,
    /// The same of [`Self::stderr_bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_unstored: Option<u64>,
    /// Whether the host has said that a detached script runs there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// When the host last told where a detached script stands, give or take some minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_at: Option<Timestamp>,
    /// Since when the host has been asked in vain where a detached script stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheard_since: Option<Timestamp>,
    /// Since when the host has been saying that a detached script runs which must be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdue_since: Option<Timestamp>,
    /// What was still there of a detached script when it was ended, until its reason tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survivors: Option<String>,
    /// The fingerprint of the host key that was seen, as `SHA256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

impl TaskRecord {
    /// A task of which nothing has happened yet.
    pub const fn pending() -> Self {
        Self {
            state: TaskState::Pending,
            reason: None,
            exit_code: None,
            signal: None,
            attempt: 0,
            retried: None,
            started_at: None,
            first_started_at: None,
            finished_at: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            truncated: false,
            stdout_unstored: None,
            stderr_unstored: None,
            confirmed: false,
            heard_at: None,
            unheard_since: None,
            overdue_since: None,
            survivors: None,
            host_key: None,
        }
    }

    /// Takes over what `news` tells of the same attempt while it runs; returns whether that is anything new.
    ///
    /// What is final stays, and what is known is never forgotten, in whatever order several people learn it.
    pub fn learn(&mut self, news: &Self) -> bool {
        if self.state != TaskState::Running || self.attempt != news.attempt || *self == *news {
            return false;
        }
        if news.state.is_final() {
            let survivors = news.survivors.clone().or(self.survivors.take());
            *self = news.clone();
            self.survivors = None;
            // Whoever ended it and whoever saw its end may be two.
            if let Some(survivors) = survivors {
                self.reason = Some(self.reason.take().map_or(survivors.clone(), |why| format!("{why}; {survivors}")));
            }
            return true;
        }
        let before = self.clone();
        if news.survivors.is_some() {
            self.survivors.clone_from(&news.survivors);
        }
        self.stdout_bytes = self.stdout_bytes.max(news.stdout_bytes);
        self.stderr_bytes = self.stderr_bytes.max(news.stderr_bytes);
        self.confirmed |= news.confirmed;
        self.heard_at = self.heard_at.max(news.heard_at);
        let unheard = [self.unheard_since, news.unheard_since].into_iter().flatten();
        self.unheard_since = unheard.filter(|since| self.heard_at.is_none_or(|heard| *since > heard)).min();
        self.overdue_since = [self.overdue_since, news.overdue_since].into_iter().flatten().min();
        if news.reason.is_some() {
            self.reason.clone_from(&news.reason);
        }
        *self != before
    }

    /// When the first attempt started that did.
    pub fn began_at(&self) -> Option<Timestamp> {
        self.first_started_at.or(self.started_at)
    }

    /// The same task, ended in `state` at `now` because of `reason`.
    #[must_use]
    pub fn ended(mut self, state: TaskState, reason: impl Into<String>, now: Timestamp) -> Self {
        self.state = state;
        self.reason = Some(reason.into());
        self.finished_at = Some(now);
        self
    }

    /// The same task, waiting for another attempt.
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.retried = Some(self.state);
        self.state = TaskState::Pending;
        self
    }

    /// The same task, which will not be started any more: ended in `state` at `now` because of `reason`, or as its last
    /// attempt has ended.
    #[must_use]
    pub fn unstarted(mut self, state: TaskState, reason: impl Into<String>, now: Timestamp) -> Self {
        let Some(last) = self.retried.take() else { return self.ended(state, reason, now) };
        self.state = last;
        self
    }
}

/// How many tasks are in each state. Counts over a run add up to its number of targets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Counts(BTreeMap<TaskState, u32>);

impl Counts {
    /// Counts one more task in `state`.
    pub fn add(&mut self, state: TaskState) {
        self.add_many(state, 1);
    }

    /// Counts `more` tasks in `state`.
    pub fn add_many(&mut self, state: TaskState, more: u32) {
        if more > 0 {
            let count = self.0.entry(state).or_default();
            *count = count.saturating_add(more);
        }
    }

    /// Counts the tasks that `other` counts, too.
    pub fn merge(&mut self, other: &Self) {
        for (state, count) in &other.0 {
            self.add_many(*state, *count);
        }
    }

    /// How many tasks are in `state`.
    pub fn of(&self, state: TaskState) -> u32 {
        self.0.get(&state).copied().unwrap_or_default()
    }

    /// How many tasks there are.
    pub fn total(&self) -> u32 {
        self.0.values().sum()
    }

    /// How many tasks ended in a state other than `succeeded`.
    pub fn errors(&self) -> u32 {
        let errors = self.0.iter().filter(|(state, _)| state.is_final() && **state != TaskState::Succeeded);
        errors.map(|(_, count)| count).sum()
    }

    /// Those of them that count towards `max_errors`: what was skipped or cancelled is a consequence.
    pub fn failures(&self) -> u32 {
        self.errors() - self.of(TaskState::Skipped) - self.of(TaskState::Cancelled)
    }

    /// The states that occur, in the order of [`TaskState::ALL`], with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (TaskState, u32)> + '_ {
        TaskState::ALL.into_iter().map(|state| (state, self.of(state))).filter(|(_, count)| *count > 0)
    }
}

/// How the tasks of a run stand, when the first of them started and the last ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many are in each state.
    pub counts: Counts,
    /// When the first that has started did so.
    pub began: Option<Timestamp>,
    /// When the last that has ended did so.
    pub ended: Option<Timestamp>,
}

impl Tally {
    /// Counts one more task.
    pub fn add(&mut self, task: &TaskRecord) {
        self.counts.add(task.state);
        self.began = self.began.into_iter().chain(task.began_at()).min();
        self.ended = self.ended.max(task.finished_at);
    }

    /// Counts the tasks that `other` counts, too.
    pub fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.began = self.began.into_iter().chain(other.began).min();
        self.ended = self.ended.max(other.ended);
    }

    /// When the run ended whose tasks these are, where all are final and somebody sees that at `now`.
    pub fn ended_by(&self, now: Timestamp) -> Timestamp {
        self.ended.map_or(now, |ended| ended.min(now))
    }
}

impl<'a> FromIterator<&'a TaskRecord> for Tally {
    fn from_iter<I: IntoIterator<Item = &'a TaskRecord>>(tasks: I) -> Self {
        let mut tally = Self::default();
        tasks.into_iter().for_each(|task| tally.add(task));
        tally
    }
}

impl FromIterator<TaskState> for Counts {
    fn from_iter<I: IntoIterator<Item = TaskState>>(states: I) -> Self {
        let mut counts = Self::default();
        states.into_iter().for_each(|state| counts.add(state));
        counts
    }
}
