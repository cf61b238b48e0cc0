//! How far one gets with a host, and how long each step takes: everything that a task does, but for a script.

use std::sync::Arc;
use std::time::Duration;

use super::access::{Access, Seen};
use super::clock;
use super::event::HEAD_BYTES;
use super::gate::Gate;
use super::listen::{Sink, listen};
use super::task::{judge, state_of};
use crate::adapter::ssh::{Connection, Stage, Steps};
use crate::domain::delivery::{Delivery, Program, Token};
use crate::domain::job::{Job, Sudo};
use crate::domain::layout::Stream;
use crate::domain::run::Target;
use crate::domain::task::{TaskRecord, TaskState};
use crate::port::Store;

/// What is run in a script's place: it does nothing, on every host.
const NOTHING: &[u8] = b"true";

/// How far one got with a host.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The host.
    pub target: Target,
    /// The steps that were passed, in order, and how long each took.
    pub steps: Vec<(Stage, Duration)>,
    /// The fingerprint of its key, where it presented one.
    pub host_key: Option<String>,
    /// The step that was not passed.
    pub failure: Option<Failure>,
}

/// A step that was not passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub step: Stage,
    /// What a task would have been.
    pub state: TaskState,
    /// Why.
    pub why: String,
}

/// Tries all steps that a task of `job` takes on `target` before its script starts.
pub async fn check<S: Store>(access: &Access<S>, job: &Job, target: &Target) -> Checked {
    let (seen, steps) = (Seen::default(), Arc::new(Steps::default()));
    let tried = attempt(access, job, target, &seen, &steps).await;
    let steps = steps.taken();
    let failure = tried.err().map(|(state, why)| {
        let passed = |step: &Stage| steps.iter().any(|(taken, _)| taken == step);
        let step = path(job, target).into_iter().find(|step| !passed(step)).unwrap_or(Stage::Shell);
        Failure { step, state, why }
    });
    Checked { target: target.clone(), steps, host_key: seen.get().cloned(), failure }
}

/// The steps on the way to a script's start.
fn path(job: &Job, target: &Target) -> Vec<Stage> {
    let jumps = !target.jump.as_ref().unwrap_or(&job.login.jump).is_empty();
    let mut path = Vec::from_iter(jumps.then_some(Stage::Jump));
    path.extend([Stage::Connect, Stage::Handshake, Stage::HostKey, Stage::Authentication, Stage::Shell]);
    path.extend((job.sudo != Sudo::No).then_some(Stage::Sudo));
    path
}

async fn attempt<S: Store>(
    access: &Access<S>,
    job: &Job,
    target: &Target,
    seen: &Seen,
    steps: &Arc<Steps>,
) -> Result<(), (TaskState, String)> {
    let connected = access.connect(job, target, seen, steps).await;
    let connection = connected.map_err(|error| (state_of(&error), error.to_string()))?;
    let tried = beyond_login(&connection, job, steps).await;
    connection.close().await;
    tried
}

async fn beyond_login(connection: &Connection, job: &Job, steps: &Steps) -> Result<(), (TaskState, String)> {
    run_nothing(connection, job, &Sudo::No).await?;
    steps.mark(Stage::Shell);
    if job.sudo != Sudo::No {
        run_nothing(connection, job, &job.sudo).await?;
        steps.mark(Stage::Sudo);
    }
    Ok(())
}

/// Delivers a command that does nothing, as `sudo` says, exactly as a script would be.
async fn run_nothing(connection: &Connection, job: &Job, sudo: &Sudo) -> Result<(), (TaskState, String)> {
    let undelivered = |why: String| (TaskState::Skipped, why);
    let channel = connection.open(job.login.connect_timeout.0).await;
    let channel = channel.map_err(|error| (state_of(&error), error.to_string()))?;
    let random = clock::random().map_err(|error| undelivered(format!("no random numbers: {error}")))?;
    let token = Token::new(random);
    let words = [NOTHING.to_vec()];
    let delivery = Delivery::new(Program::Command(&words), sudo, job.login.connect_timeout.0);
    let parcel = delivery.and_then(|delivery| delivery.parcel(&token, &[]));
    let parcel = parcel.map_err(|error| undelivered(error.to_string()))?;
    // It may not take longer than a connection does.
    let job = Job { timeout: job.login.connect_timeout, ..job.clone() };
    let mut said = Said::default();
    let heard = listen(channel, &token, &parcel, &job, &Gate::new(1, None), &mut said).await;
    let record = judge(TaskRecord::pending(), heard, &job);
    if record.state == TaskState::Succeeded {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said.0);
    let why = record.reason.unwrap_or_else(|| format!("a command that does nothing failed: {}", said.trim_end()));
    Err((record.state, why))
}

/// The beginning of what was printed, on either stream.
#[derive(Default)]
struct Said(Vec<u8>);

impl Sink for Said {
    async fn write(&mut self, _stream: Stream, bytes: &[u8]) {
        let room = HEAD_BYTES.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    async fn flush(&mut self) {}
}
