//! One attempt on one host: connect, check the key, note the intent, deliver, listen, and say how it ended.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::access::{Access, Seen};
use super::clock::Clock;
use super::collect::Collector;
use super::event::{Event, Head};
use super::gate::Stop;
use super::ledger::LedgerError;
use super::listen::{Heard, Missing, Refusal, Speaker, Status, listen};
use super::question::{Answer, ask};
use super::records::Runs;
use super::spool::Spool;
use super::worker::{Batch, Shipment, Worker};
use crate::adapter::ssh::{self, ConnectError};
use crate::domain::delivery::sudo::explain;
use crate::domain::delivery::{Parcel, Token};
use crate::domain::detached::{self, read_start};
use crate::domain::diagnostic::chain;
use crate::domain::job::{Job, Sudo};
use crate::domain::run::{RunRecord, Target};
use crate::domain::task::{TaskRecord, TaskState};
use crate::port::Store;

/// The exit status of a shell that finds no program of that name (POSIX, 2.8.2).
const NO_PROGRAM: u32 = 127;

/// How long a host may take to answer that a detached script runs.
const START_WITHIN: Duration = Duration::from_secs(30);

/// More than any answer to a start has.
const MAX_START_ANSWER: u64 = 1024;

/// How long to wait for a store that did not answer.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// One attempt on one host.
pub struct Task<'a, S, F> {
    /// The worker that makes it.
    pub worker: &'a Worker<S, F>,
    /// The batch that it is part of.
    pub batch: &'a Batch,
    /// The host.
    pub target: &'a Arc<Target>,
    /// Its number, from 1.
    pub attempt: u32,
}

/// How an attempt ended.
pub struct Attempt {
    /// What is known of the task now.
    pub record: TaskRecord,
    /// The beginning of what it printed.
    pub stdout: Head,
    /// The beginning of its complaints.
    pub stderr: Head,
}

impl From<TaskRecord> for Attempt {
    /// An attempt that has printed nothing.
    fn from(record: TaskRecord) -> Self {
        Self { record, stdout: Head::default(), stderr: Head::default() }
    }
}

/// What brings scripts to hosts: SSH, or in a simulation a fleet without a network.
///
/// It is asked to reach a host, then the intent becomes durable, and only then is it asked to run the script.
pub trait Fleet<S>: Clone + Send + Sync + 'static {
    /// A host that waits for its script.
    type Ready: Send;

    /// Reaches the host of `task`, and notes in `record` what is seen of it; nothing is started.
    ///
    /// # Errors
    /// What the task has come to, and why.
    fn reach(
        &self,
        task: &Task<'_, S, Self>,
        record: &mut TaskRecord,
    ) -> impl Future<Output = Result<Self::Ready, (TaskState, String)>> + Send;

    /// Runs the script on the host, to its end or, where it is detached, to its start.
    fn run(
        &self,
        task: &Task<'_, S, Self>,
        ready: Self::Ready,
        record: TaskRecord,
    ) -> impl Future<Output = Attempt> + Send;

    /// Looks after what of `run` runs detached, for as long as it is polled.
    fn look_after(&self, runs: &Runs<S>, run: &RunRecord, clock: Clock) -> impl Future<Output = ()> + Send;
}

impl<S: Store, F: Fleet<S>> Task<'_, S, F> {
    /// Makes the attempt, before which one has started at `began`; tells also whether its intent was written, and with
    /// it its number used.
    ///
    /// # Errors
    /// [`LedgerError`] where the intent could not be written: nothing was started then.
    pub(super) async fn attempt(&self, began: Option<Timestamp>) -> Result<(Attempt, bool), LedgerError> {
        let mut record = TaskRecord { attempt: self.attempt, first_started_at: began, ..TaskRecord::pending() };
        let reached = tokio::select! {
            biased;
            () = self.worker.gate.ending() => Err((TaskState::Cancelled, "cancelled before it started".to_owned())),
            reached = self.worker.access.reach(self, &mut record) => reached,
        };
        let ready = match reached {
            Ok(ready) => ready,
            Err((state, why)) => return Ok((record.ended(state, &why, self.worker.clock.now()).into(), false)),
        };
        record.state = TaskState::Running;
        record.started_at = Some(self.worker.clock.now());
        // From here on the script may have started: the intent is durable before its first byte leaves.
        let kept = self.batch.ledger.record(&self.target.instance, record.clone()).await?;
        if kept.state.is_final() {
            return Ok((kept.into(), true));
        }
        self.worker.tell(Event::TaskStarted { target: Arc::clone(self.target), attempt: self.attempt }).await;
        Ok((self.worker.access.run(self, ready, record).await, true))
    }
}

/// A host behind a connection, and what it is to be sent.
pub struct Connected {
    connection: ssh::Connection,
    channel: ssh::Channel,
    token: Token,
    parcel: Parcel,
}

impl<S: Store> Fleet<S> for Access<S> {
    type Ready = Connected;

    async fn reach(&self, task: &Task<'_, S, Self>, record: &mut TaskRecord) -> Result<Connected, (TaskState, String)> {
        let connected = task.connect(record).await.map_err(|error| (state_of(&error), error.to_string()));
        let (connection, channel) = connected?;
        tracing::info!(instance = %task.target.instance, attempt = task.attempt, "connected");
        let (token, parcel) = task.parcel().map_err(|why| (TaskState::Skipped, why))?;
        Ok(Connected { connection, channel, token, parcel })
    }

    async fn run(&self, task: &Task<'_, S, Self>, ready: Connected, record: TaskRecord) -> Attempt {
        task.deliver(ready, record).await
    }

    async fn look_after(&self, runs: &Runs<S>, run: &RunRecord, clock: Clock) {
        let collector = Collector { runs: runs.clone(), access: self.clone(), clock };
        let complain = |target: &Target, why: &str| tracing::info!(instance = %target.instance, why, "was not asked");
        while let Err(error) = collector.follow(run, complain).await {
            tracing::warn!(run = %run.run, %error, "what runs detached is not known");
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        // With a verdict there is nothing left to look after.
        std::future::pending::<()>().await;
    }
}

impl<S: Store> Task<'_, S, Access<S>> {
    async fn deliver(&self, ready: Connected, mut record: TaskRecord) -> Attempt {
        let Connected { connection, channel, token, parcel } = ready;
        let job = &self.batch.run.job;
        let (instance, bytes) = (&self.target.instance, parcel.head.len() + parcel.script.len());
        tracing::debug!(%instance, bytes, sudo = job.sudo.user(), "delivering");
        if let Shipment::Detached(_) = self.batch.shipment {
            let record = self.launch(record, channel, &token, &parcel).await;
            connection.close().await;
            return record.into();
        }
        let (runs, keys) = (self.worker.runs.clone(), self.batch.keys.clone());
        let mut spool = Spool::new(runs, keys, self.target.instance.clone(), self.attempt, job.max_output.0);
        let heard = listen(channel, &token, &parcel, job, &self.worker.gate, &mut spool).await;
        tracing::debug!(%instance, delivered = heard.delivered, started = heard.started, status = ?heard.status, "heard");
        let (spooled, ()) = tokio::join!(spool.finish(), connection.close());
        let cut = heard.missing == Some(Missing::Cut);
        record = judge(record, heard, job);
        record = self.out_of_time(record);
        record.finished_at = Some(self.worker.clock.now());
        tracing::info!(instance = %self.target.instance, attempt = self.attempt, state = %record.state, "ended");
        record.stdout_bytes = spooled.stdout_bytes;
        record.stderr_bytes = spooled.stderr_bytes;
        record.truncated = spooled.truncated || cut;
        if let Some(failure) = spooled.failure {
            let failure = chain(&failure);
            let why = format!("output was not stored: {failure}");
            // A store that loses output would lose more of it on the next host.
            let stop = Stop::Store(failure);
            let reason = stop.reason();
            if self.worker.gate.close(stop) {
                self.worker.tell(Event::Stopping { reason }).await;
            }
            record.reason = Some(record.reason.map_or_else(|| why.clone(), |reason| format!("{reason}; {why}")));
        }
        Attempt { record, stdout: spooled.stdout, stderr: spooled.stderr }
    }

    /// What ended because its worker's time was over has timed out: nobody has asked for its end.
    fn out_of_time(&self, record: TaskRecord) -> TaskRecord {
        match self.worker.gate.stopped() {
            Some(stop @ Stop::OutOfTime) if record.state == TaskState::Cancelled && record.started_at.is_some() => {
                let reason = [Some(stop.reason()), record.reason].into_iter().flatten().collect::<Vec<_>>().join("; ");
                TaskRecord { state: TaskState::TimedOut, reason: Some(reason), ..record }
            }
            _ => record,
        }
    }

    /// Starts a detached script; its host answers at once, and then it runs without us.
    async fn launch(
        &self,
        mut record: TaskRecord,
        channel: ssh::Channel,
        token: &Token,
        parcel: &Parcel,
    ) -> TaskRecord {
        let job = &self.batch.run.job;
        let answer = ask(channel, token, parcel, job, &self.worker.gate, MAX_START_ANSWER, START_WITHIN).await;
        let Answer { heard, bytes } = answer;
        if heard.started {
            record.confirmed = read_start(token, &bytes).is_ok();
        } else {
            let unheard = may_have_begun(&heard);
            let judged = judge(record.clone(), heard, job);
            if judged.state != TaskState::Lost && !unheard {
                return TaskRecord { finished_at: Some(self.worker.clock.now()), ..judged };
            }
        }
        // Where the host has not confirmed it the collector finds out what is true.
        let (instance, attempt) = (&self.target.instance, self.attempt);
        tracing::info!(%instance, attempt, confirmed = record.confirmed, "started");
        record
    }

    async fn connect(&self, record: &mut TaskRecord) -> Result<(ssh::Connection, ssh::Channel), ConnectError> {
        let job = &self.batch.run.job;
        let seen = Seen::default();
        let connected = self.worker.access.connect(job, self.target, &seen, &Arc::default()).await;
        record.host_key = seen.get().cloned();
        let connection = connected?;
        let channel = connection.open(job.login.connect_timeout.0).await?;
        Ok((connection, channel))
    }

    fn parcel(&self) -> Result<(Token, Parcel), String> {
        let run = &self.batch.run;
        let random = super::clock::random().map_err(|error| format!("no random numbers: {error}"))?;
        let token = Token::new(random);
        let attempt = self.attempt.to_string();
        let scheduled_for = run.scheduled_for.map(|at| at.to_string());
        let ours = [
            ("SSHJOB_RUN_ID", Some(run.run.as_str())),
            ("SSHJOB_JOB", Some(run.job.name.as_str())),
            ("SSHJOB_INSTANCE", Some(self.target.instance.as_str())),
            ("SSHJOB_ATTEMPT", Some(attempt.as_str())),
            ("SSHJOB_SCHEDULED_FOR", scheduled_for.as_deref()),
        ];
        let ours = ours.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let env = run.job.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let secrets = self.worker.secrets.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let env: Vec<(&str, &[u8])> =
            ours.chain(env).chain(secrets).map(|(name, value)| (name, value.as_bytes())).collect();
        let parcel = match &self.batch.shipment {
            Shipment::Spoiled => return Err("there is nothing to send".to_owned()),
            Shipment::Attached(delivery) => delivery.parcel(&token, &env),
            Shipment::Detached(detached) => {
                let (run, instance) = (run.run.clone(), self.target.instance.clone());
                detached.parcel(&token, &detached::Attempt { run, instance, number: self.attempt }, &env)
            }
        };
        parcel.map(|parcel| (token, parcel)).map_err(|error| error.to_string())
    }
}

/// Whether a supervisor may have begun although nobody said so: where it, or a shell of ours that passes its answer on, is
/// killed, that never comes. That it was is the status.
fn may_have_begun(heard: &Heard) -> bool {
    let killed = match &heard.status {
        Some(Status::Code(code)) => (129..=192).contains(code),
        Some(Status::Signal(_)) | None => true,
    };
    heard.delivered && heard.failure.is_none() && killed
}

/// What a task is that cannot connect.
pub(super) fn state_of(error: &ConnectError) -> TaskState {
    match error {
        ConnectError::Unreachable { .. } => TaskState::Unreachable,
        ConnectError::AuthFailed { .. } => TaskState::AuthFailed,
        ConnectError::HostKeyRejected { .. } => TaskState::HostKeyRejected,
        ConnectError::TrustUnavailable { .. } => TaskState::Skipped,
    }
}

/// Says how an attempt ended, from what was heard of it.
pub(super) fn judge(mut record: TaskRecord, heard: Heard, job: &Job) -> TaskRecord {
    let (state, reason) = verdict(&heard, job);
    record.state = state;
    record.reason = reason;
    if heard.started {
        match heard.status {
            Some(Status::Code(code)) => record.exit_code = Some(code),
            Some(Status::Signal(signal)) => record.signal = Some(signal),
            None => {}
        }
    } else if state != TaskState::Lost {
        // Nothing ran after all.
        record.started_at = None;
        record.exit_code = match (state, heard.status) {
            (TaskState::Failed, Some(Status::Code(code))) if heard.speaker == Speaker::Sudo => Some(code),
            (TaskState::Failed, _) => Some(NO_PROGRAM),
            _ => None,
        };
    }
    record
}

fn verdict(heard: &Heard, job: &Job) -> (TaskState, Option<String>) {
    if !heard.started {
        return unstarted(heard, &job.sudo);
    }
    if let Some(state) = heard.ending {
        let limit = match (state, &heard.given_up) {
            (TaskState::TimedOut, None) => format!("ran longer than {}", job.timeout),
            (TaskState::TimedOut, Some(_)) => "ended, for it started too late: is a login file slow?".to_owned(),
            _ => String::new(),
        };
        let open = if heard.status.is_none() { "the host did not confirm that it ended" } else { "" };
        let reason = [limit.as_str(), open].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        return (state, (!reason.is_empty()).then_some(reason));
    }
    let remark = heard.missing.map(|missing| match missing {
        Missing::Held => "a background process still holds the output open".to_owned(),
        Missing::Cut => "the connection broke after its end: output may be missing".to_owned(),
    });
    match &heard.status {
        None => (TaskState::Lost, Some("connection".to_owned())),
        Some(Status::Signal(_)) => (TaskState::Failed, remark),
        Some(Status::Code(code)) => {
            let accepted = u8::try_from(*code).is_ok_and(|code| job.ok_exit_codes.contains(&code));
            (if accepted { TaskState::Succeeded } else { TaskState::Failed }, remark)
        }
    }
}

/// The host never said that the script is about to start.
fn unstarted(heard: &Heard, sudo: &Sudo) -> (TaskState, Option<String>) {
    let said = |nothing: &str| match heard.noise.as_str() {
        "" => nothing.to_owned(),
        noise => format!(": {noise}"),
    };
    let never = heard.failure.is_some() || heard.status.is_some() || !heard.delivered;
    match (&heard.failure, &heard.status, heard.ending) {
        // What the host then says is how our own end of the delivery looked to it.
        (_, _, Some(state)) if never => (state, Some("cancelled before it started".to_owned())),
        // The host was reached and cannot run this: trying again would not help, and no network is at fault.
        (Some(Refusal::NoProgram(why)), _, _) => (TaskState::Failed, Some(format!("nothing was started: {why}"))),
        (Some(Refusal::Other(why)), _, _) => (TaskState::Unreachable, Some(format!("nothing was started: {why}"))),
        // Nor here: who answers is sudo.
        (None, Some(Status::Code(code)), _) if heard.speaker == Speaker::Sudo => {
            let why = explain(sudo, *code, &heard.noise);
            (TaskState::Failed, Some(format!("nothing was started: {why}")))
        }
        // Our part has ended, and its word never came: a login shell that does not do what it is told.
        (None, Some(Status::Code(code)), _) => {
            let said = said(" and said nothing: is it a shell, and does a login file exit?");
            let why = format!("the login shell or a forced command ended with status {code}{said}");
            (TaskState::Unreachable, Some(format!("nothing was started: {why}")))
        }
        (None, Some(Status::Signal(signal)), _) => {
            let why = format!("signal {signal} ended the login shell or a forced command{}", said(""));
            (TaskState::Unreachable, Some(format!("nothing was started: {why}")))
        }
        (None, None, _) if !heard.delivered => {
            let why = "nothing was started: the connection broke or stalled in mid-delivery".to_owned();
            (TaskState::Unreachable, Some(why))
        }
        // Everything was handed over and no word came: it may have started.
        (None, None, _) => {
            let why = heard.given_up.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            (TaskState::Lost, Some(format!("connection{why}")))
        }
    }
}
