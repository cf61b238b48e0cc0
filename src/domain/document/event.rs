//! What happens in a run, as machines read it: one object per event, as it happens.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{RunSummary, Schema, TaskDocument, milliseconds};
use crate::domain::id::{InstanceId, JobName, RunId};
use crate::domain::run::{RunRecord, Target};
use crate::domain::task::{TaskRecord, TaskState};

/// What happens in a run, one object per event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schemars(deny_unknown_fields)]
pub enum EventDocument {
    /// The run is claimed and planned.
    RunStarted {
        /// The version of the document.
        schema: Schema,
        /// The run.
        #[schemars(with = "String")]
        run: RunId,
        /// The job that it is a run of.
        #[schemars(with = "String")]
        job: JobName,
        /// Who asked for it.
        actor: String,
        /// The run whose tasks this one runs again.
        #[schemars(with = "Option<String>")]
        retry_of: Option<RunId>,
        /// The firing that it is, for a schedule.
        #[schemars(with = "Option<String>", extend("format" = "date-time"))]
        scheduled_for: Option<Timestamp>,
        /// When it was claimed.
        #[schemars(with = "String", extend("format" = "date-time"))]
        started_at: Timestamp,
        /// How many tasks it has.
        targets: u32,
    },
    /// A firing of a schedule became a run.
    RunFired {
        /// The version of the document.
        schema: Schema,
        /// The run.
        #[schemars(with = "String")]
        run: RunId,
        /// The job that it is a run of.
        #[schemars(with = "String")]
        job: JobName,
        /// The firing that it is.
        #[schemars(with = "String", extend("format" = "date-time"))]
        scheduled_for: Timestamp,
    },
    /// A run that has fired cannot start yet.
    RunWaiting {
        /// The version of the document.
        schema: Schema,
        /// The run.
        #[schemars(with = "String")]
        run: RunId,
        /// What it waits for.
        reason: String,
    },
    /// A task's script is on its way.
    TaskStarted {
        /// The version of the document.
        schema: Schema,
        /// The run.
        #[schemars(with = "String")]
        run: RunId,
        /// The instance, as its inventory calls it.
        #[schemars(with = "String")]
        instance: InstanceId,
        /// Host name or address that is connected to.
        address: Option<String>,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// An attempt ended in a way that the job tries again.
    TaskRetried {
        /// The version of the document.
        schema: Schema,
        /// The run.
        #[schemars(with = "String")]
        run: RunId,
        /// The instance, as its inventory calls it.
        #[schemars(with = "String")]
        instance: InstanceId,
        /// Host name or address that is connected to.
        address: Option<String>,
        /// Which attempt ended, from 1.
        attempt: u32,
        /// How it ended.
        state: TaskState,
        /// Why, in a few words.
        reason: Option<String>,
        /// The exit status of the script, where it ended with one.
        exit_code: Option<u32>,
        /// The signal that ended the script, without `SIG`.
        signal: Option<String>,
        /// Milliseconds until the next attempt.
        delay_ms: u64,
    },
    /// A task became final.
    TaskFinished {
        /// The version of the document.
        schema: Schema,
        /// The task.
        #[serde(flatten)]
        task: Box<TaskDocument>,
    },
    /// A detached task's script runs on without us.
    TaskDetached {
        /// The version of the document.
        schema: Schema,
        /// The task.
        #[serde(flatten)]
        task: Box<TaskDocument>,
    },
    /// No more tasks are started.
    Stopping {
        /// The version of the document.
        schema: Schema,
        /// The run.
        #[schemars(with = "String")]
        run: RunId,
        /// Why.
        reason: String,
    },
    /// All that could be started is, and some of it runs on without us.
    RunReleased(Box<RunSummary>),
    /// The verdict is written.
    RunFinished(Box<RunSummary>),
}

impl EventDocument {
    /// `run` is claimed and planned, with this many tasks.
    pub fn run_started(run: &RunRecord, targets: u32) -> Self {
        Self::RunStarted {
            schema: Schema::V1,
            run: run.run.clone(),
            job: run.job.name.clone(),
            actor: run.actor.clone(),
            retry_of: run.retry_of.clone(),
            scheduled_for: run.scheduled_for,
            started_at: run.started_at,
            targets,
        }
    }

    /// The firing that was due at `scheduled_for` became `run`.
    pub fn run_fired(run: &RunId, scheduled_for: Timestamp) -> Self {
        Self::RunFired { schema: Schema::V1, run: run.clone(), job: run.job(), scheduled_for }
    }

    /// `run` cannot start yet.
    pub fn run_waiting(run: &RunId, reason: &str) -> Self {
        Self::RunWaiting { schema: Schema::V1, run: run.clone(), reason: reason.to_owned() }
    }

    /// A script is on its way to `target`.
    pub fn task_started(run: &RunId, target: &Target, attempt: u32) -> Self {
        Self::TaskStarted {
            schema: Schema::V1,
            run: run.clone(),
            instance: target.instance.clone(),
            address: target.address.clone(),
            attempt,
        }
    }

    /// An attempt on `target` ended as `record` says, and another one follows after `delay`.
    pub fn task_retried(run: &RunId, target: &Target, record: &TaskRecord, delay: Duration) -> Self {
        Self::TaskRetried {
            schema: Schema::V1,
            run: run.clone(),
            instance: target.instance.clone(),
            address: target.address.clone(),
            attempt: record.attempt,
            state: record.state,
            reason: record.reason.clone(),
            exit_code: record.exit_code,
            signal: record.signal.clone(),
            delay_ms: milliseconds(delay),
        }
    }

    /// A task became final, or a detached one runs on without us.
    pub fn task_ended(task: TaskDocument) -> Self {
        let (schema, task) = (Schema::V1, Box::new(task));
        if task.state.is_final() { Self::TaskFinished { schema, task } } else { Self::TaskDetached { schema, task } }
    }

    /// No more tasks are started.
    pub fn stopping(run: &RunId, reason: &str) -> Self {
        Self::Stopping { schema: Schema::V1, run: run.clone(), reason: reason.to_owned() }
    }

    /// The run goes on without us.
    pub fn run_released(run: RunSummary) -> Self {
        Self::RunReleased(Box::new(run))
    }

    /// The verdict is written.
    pub fn run_finished(run: RunSummary) -> Self {
        Self::RunFinished(Box::new(run))
    }
}
