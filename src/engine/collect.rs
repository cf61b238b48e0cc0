//! Detached jobs: seeing where they stand, fetching what they print, ending them.
//!
//! Whoever has the store and can log in may do it, any number at a time: pieces of output are created once, outcomes
//! move by compare-and-swap, and final states never change. What a host does not answer, or not in our words, changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use super::access::{Access, Seen};
use super::clock::Clock;
use super::gate::Gate;
use super::listen::patience;
use super::notes::Notes;
use super::question::{ask, token};
use super::reconcile::{Settled, reconcile};
use super::records::{Runs, damaged};
use super::task::judge;
use super::worker::WorkError;
use crate::adapter::ssh::{Channel, Connection};
use crate::domain::detached::collect::{self, Ask, Found, How, Piece, Verdict, Why};
use crate::domain::detached::{Attempt, cancel};
use crate::domain::job::Job;
use crate::domain::layout::{RunKeys, Stream};
use crate::domain::run::{RunRecord, Target};
use crate::domain::task::{TaskRecord, TaskState};
use crate::port::{Store, StoreError, Written};

/// How many hosts are asked at a time.
const AT_A_TIME: usize = 50;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// Bytes of each stream that one answer brings: with all hosts that are asked at a time, a hundred MiB in memory.
const MOST: u32 = 1 << 20;

/// Answers of one host before its record is written.
const ANSWERS: u32 = 16;

/// How long a start may still be on its way that its host has not confirmed, once all of it was to be delivered.
const START_MAY_COME: SignedDuration = SignedDuration::from_mins(2);

/// Bytes per piece of output in the store.
const PIECE_BYTES: usize = 256 * 1024;

/// Looks after the detached jobs of a run.
#[derive(Debug, Clone)]
pub struct Collector<S> {
    /// Where the run lives.
    pub runs: Runs<S>,
    /// How its hosts are reached.
    pub access: Access<S>,
    /// Tells the time.
    pub clock: Clock,
}

/// What came of one look at all hosts.
#[derive(Debug, Default)]
pub struct Round {
    /// How many tasks run on.
    pub running: usize,
    /// Whether some host has more output than it was asked for.
    pub more: bool,
    /// The hosts that did not answer, and why.
    pub troubles: Vec<(Target, String)>,
}

/// What is to be done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    Look,
    End,
}

/// What came of one task.
struct Told {
    target: Target,
    /// The record as it is in the store now, and whether its host has more output.
    result: Result<(TaskRecord, bool), String>,
}

impl<S: Store> Collector<S> {
    /// Looks at every task of `run` that is not final; where none is left, the run gets its verdict.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn look(&self, run: &RunRecord) -> Result<Round, WorkError> {
        self.go_round(run, Errand::Look).await
    }

    /// Ends every task of `run` that is not final: TERM, 10 s, KILL, for its whole process group; names what survives.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn end(&self, run: &RunRecord) -> Result<Round, WorkError> {
        self.go_round(run, Errand::End).await
    }

    async fn go_round(&self, run: &RunRecord, errand: Errand) -> Result<Round, WorkError> {
        let mut round = Round::default();
        let plan = self.runs.plan(&run.run).await?;
        let batches = plan.map_or(0, |plan| u32::try_from(plan.batches.len()).unwrap_or(u32::MAX));
        for n in 0..batches {
            let Some((outcomes, _)) = self.runs.outcomes(&run.run, n).await? else { continue };
            let targets = self.runs.targets(&run.run, n).await?.map(|targets| targets.targets).unwrap_or_default();
            let running = targets.into_iter().filter_map(|target| {
                let record = outcomes.tasks.get(&target.instance)?;
                (record.state == TaskState::Running).then(|| (target, record.clone()))
            });
            let notes = Notes::new(&self.runs, &run.run, n);
            let mut told = stream::iter(running)
                .map(|(target, record)| self.visit(run, &notes, target, record, errand))
                .buffer_unordered(AT_A_TIME);
            while let Some(Told { target, result }) = told.next().await {
                match result {
                    Ok((record, more)) => {
                        round.more |= more;
                        round.running += usize::from(!record.state.is_final());
                    }
                    Err(why) => {
                        round.running += 1;
                        round.troubles.push((target, why));
                    }
                }
            }
        }
        if round.running == 0 {
            match reconcile(&self.runs, run, self.clock.now()).await {
                Ok(Settled::Finished(_)) => {}
                // Its driver writes the verdict, or another collector does; or a driver has died since we looked.
                Ok(Settled::Driven | Settled::Detached) | Err(WorkError::Held(_) | WorkError::Fenced) => {
                    round.running = 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(round)
    }

    async fn visit(
        &self,
        run: &RunRecord,
        notes: &Notes<'_, S>,
        target: Target,
        record: TaskRecord,
        errand: Errand,
    ) -> Told {
        let steps = Arc::default();
        let connected = self.access.connect(&run.job, &target, &Seen::default(), &steps).await;
        let result = match connected {
            Ok(connection) => {
                let visit = Visit { collector: self, connection: &connection, run, notes, target: &target };
                let result = visit.run(record, errand).await;
                connection.close().await;
                result
            }
            Err(error) => Err(error.to_string()),
        };
        Told { target, result }
    }
}

/// One connection to one host.
struct Visit<'a, S> {
    collector: &'a Collector<S>,
    connection: &'a Connection,
    run: &'a RunRecord,
    notes: &'a Notes<'a, S>,
    target: &'a Target,
}

impl<S: Store> Visit<'_, S> {
    async fn run(&self, mut record: TaskRecord, errand: Errand) -> Result<(TaskRecord, bool), String> {
        let attempt =
            Attempt { run: self.run.run.clone(), instance: self.target.instance.clone(), number: record.attempt };
        let survivors = if errand == Errand::End { self.end(&attempt).await? } else { None };
        let mut more = false;
        for _ in 0..ANSWERS {
            let found = self.look(&attempt, &record).await?;
            let told = |error: StoreError| Fault(error).to_string();
            let (kept, all) = self.store_output(&record, &found).await.map_err(told)?;
            let now = self.collector.clock.now();
            record = if all { conclude(kept, &found, self.run, now) } else { kept };
            more = !all;
            if all {
                break;
            }
        }
        if record.state.is_final()
            && let Some(survivors) = survivors
        {
            record.reason = Some(record.reason.map_or_else(|| survivors.clone(), |why| format!("{why}; {survivors}")));
        }
        let record = self.notes.write(&self.target.instance, record).await?;
        if record.state.is_final() {
            self.forget(attempt).await;
        }
        Ok((record, more))
    }

    async fn channel(&self) -> Result<Channel, String> {
        let opened = self.connection.open(self.run.job.login.connect_timeout.0).await;
        opened.map_err(|error| error.to_string())
    }

    /// Asks the host where the attempt stands.
    async fn look(&self, attempt: &Attempt, record: &TaskRecord) -> Result<Found, String> {
        let (out, err) = (record.stdout_bytes, record.stderr_bytes);
        let asks = [Ask::Look { attempt: attempt.clone(), out, err, most: MOST }];
        let mut found = self.answer(&asks).await?.pop().ok_or("the host's answer is empty")?;
        let max = self.run.job.max_output.0;
        for (piece, offset) in [(&mut found.out, out), (&mut found.err, err)] {
            limit(piece, offset, max);
        }
        Ok(found)
    }

    async fn answer(&self, asks: &[Ask]) -> Result<Vec<Found>, String> {
        let token = token()?;
        let job = &self.run.job;
        let parcel = collect::parcel(&job.sudo, &token, asks).map_err(|error| error.to_string())?;
        let (gate, most) = (Gate::new(1, None), collect::max_answer(asks));
        let answer = ask(self.channel().await?, &token, &parcel, job, &gate, most, ANSWER_WITHIN).await;
        match collect::read(&token, asks, &answer.bytes) {
            Ok(found) => Ok(found),
            Err(unreadable) if answer.heard.started => Err(unreadable.to_string()),
            Err(_) => Err(unasked(answer.heard, job)),
        }
    }

    /// Ends the attempt; returns what to say of what is still there.
    async fn end(&self, attempt: &Attempt) -> Result<Option<String>, String> {
        let token = token()?;
        let job = &self.run.job;
        let parcel = cancel::parcel(&job.sudo, &token, attempt).map_err(|error| error.to_string())?;
        let gate = Gate::new(1, None);
        let channel = self.channel().await?;
        let answer = ask(channel, &token, &parcel, job, &gate, cancel::MAX_ANSWER, ANSWER_WITHIN).await;
        match cancel::read(&token, attempt, &answer.bytes) {
            Ok(cancelled) => Ok(survivors(&cancelled)),
            Err(unreadable) if answer.heard.started => Err(unreadable.to_string()),
            Err(_) => Err(unasked(answer.heard, job)),
        }
    }

    /// Has the host remove what is kept here. Where that fails, its own housekeeping does it later.
    async fn forget(&self, attempt: Attempt) {
        if let Err(why) = self.answer(&[Ask::Forget(attempt)]).await {
            tracing::info!(instance = %self.target.instance, why, "its directory stays for now");
        }
    }

    /// Stores what is new of the output; tells whether that is all there is.
    async fn store_output(&self, record: &TaskRecord, found: &Found) -> Result<(TaskRecord, bool), StoreError> {
        let mut record = record.clone();
        record.stdout_bytes = self.store(Stream::Out, record.attempt, record.stdout_bytes, &found.out).await?;
        record.stderr_bytes = self.store(Stream::Err, record.attempt, record.stderr_bytes, &found.err).await?;
        let all = record.stdout_bytes >= found.out.stored && record.stderr_bytes >= found.err.stored;
        Ok((record, all))
    }

    /// Stores `piece`, which begins at `offset`, and returns up to where the stream is stored then. What another
    /// collector has stored of it meanwhile stays: it is the same.
    async fn store(&self, stream: Stream, number: u32, offset: u64, piece: &Piece) -> Result<u64, StoreError> {
        let keys = RunKeys::new(&self.run.run);
        let store = self.collector.runs.store();
        let (mut at, mut rest) = (offset, piece.bytes.as_slice());
        while !rest.is_empty() {
            let (bytes, after) = rest.split_at(rest.len().min(PIECE_BYTES));
            let key = keys.output(&self.target.instance, number, stream, at);
            if let Written::Done(_) = store.create(&key, bytes.to_vec()).await? {
                (at, rest) = (at + bytes.len() as u64, after);
                continue;
            }
            let stored = store.get(&key).await?.ok_or_else(|| damaged(&key, "it vanished"))?.bytes.len();
            if stored == 0 {
                return Err(damaged(&key, "it is empty"));
            }
            at += stored as u64;
            rest = rest.get(stored..).unwrap_or_default();
        }
        Ok(at)
    }
}

/// Takes no more of a stream than its supervisor was told to store, whatever else the host claims to have.
fn limit(piece: &mut Piece, offset: u64, max: u64) {
    let beyond = piece.stored.saturating_sub(max);
    if beyond > 0 {
        piece.stored = max;
        piece.dropped = Some(piece.dropped.unwrap_or_default().saturating_add(beyond));
        piece.bytes.truncate(usize::try_from(max.saturating_sub(offset)).unwrap_or(usize::MAX));
    }
}

/// Until when a start that was never confirmed may still come true: its delivery is as slow as its link.
fn start_may_come(run: &RunRecord) -> SignedDuration {
    let delivery = patience(run.job.login.connect_timeout.0, run.script.bytes);
    SignedDuration::try_from(delivery).unwrap_or(SignedDuration::MAX).saturating_add(START_MAY_COME)
}

/// A store's fault with its cause.
pub(super) struct Fault(pub(super) StoreError);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cause = std::error::Error::source(&self.0).map(|cause| format!(": {cause}")).unwrap_or_default();
        write!(f, "{}{cause}", self.0)
    }
}

/// Why a host did not come to answer, in the words of a task that did not start.
fn unasked(heard: super::listen::Heard, job: &Job) -> String {
    let record = judge(TaskRecord::pending(), heard, job);
    record.reason.unwrap_or_else(|| "the connection broke".to_owned())
}

/// What to say of processes that outlived a cancelled job.
fn survivors(cancelled: &cancel::Cancelled) -> Option<String> {
    let unseen = if cancelled.scanned { "" } else { "; what left its process group could not be looked for" };
    if cancelled.survivors == 0 {
        return (!cancelled.scanned).then(|| unseen.trim_start_matches("; ").to_owned());
    }
    let named: Vec<String> = cancelled.named.iter().take(8).map(|it| format!("{} (pid {})", it.name, it.pid)).collect();
    let more = cancelled.survivors.saturating_sub(named.len() as u64);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Some(format!("still there: {}{more}{unseen}", named.join(", ")))
}

/// What a task is, by what its host has told and all of its output stored.
fn conclude(mut record: TaskRecord, found: &Found, run: &RunRecord, now: Timestamp) -> TaskRecord {
    let job = &run.job;
    let ended_at = |ago: Option<Duration>| {
        let ago = ago.and_then(|ago| SignedDuration::try_from(ago).ok()).unwrap_or_default();
        now.checked_sub(ago).unwrap_or(now)
    };
    let confirmed = record.confirmed || found.verdict != Verdict::Vanished;
    let (state, reason, finished_at) = match &found.verdict {
        Verdict::Running { supervised, .. } => {
            record.confirmed = confirmed;
            record.reason = (!supervised).then(|| "its supervisor is gone: how it ends will not be known".to_owned());
            return record;
        }
        Verdict::Vanished if !confirmed => {
            let since = record.started_at.unwrap_or(now);
            if now.duration_since(since) < start_may_come(run) {
                return record;
            }
            (
                TaskState::Lost,
                Some("vanished: its host knows nothing of it, and never confirmed its start".to_owned()),
                now,
            )
        }
        Verdict::Vanished => (TaskState::Lost, Some("vanished".to_owned()), now),
        Verdict::Rebooted => (TaskState::Lost, Some("rebooted".to_owned()), now),
        Verdict::Killed { why: Why::Cancelled, .. } => (TaskState::Cancelled, Some(UNKNOWN_END.to_owned()), now),
        Verdict::Killed { why: Why::TimedOut, .. } => (TaskState::TimedOut, Some(UNKNOWN_END.to_owned()), now),
        Verdict::Killed { why: Why::Itself, out_of_memory } => {
            let memory = if *out_of_memory { ": the host ran out of memory" } else { "" };
            (TaskState::Lost, Some(format!("killed{memory}")), now)
        }
        Verdict::Ended { how, why, ago, .. } => {
            let mut reason = None;
            let accepted = match how {
                How::Exit(code) => {
                    record.exit_code = Some(u32::from(*code));
                    job.ok_exit_codes.contains(code)
                }
                How::Signal { number, out_of_memory } => {
                    record.signal = Some(signal(*number));
                    reason = out_of_memory.then(|| "the host ran out of memory".to_owned());
                    false
                }
            };
            let state = match why {
                Why::Cancelled => TaskState::Cancelled,
                Why::TimedOut => {
                    reason = Some(format!("ran longer than {}", job.timeout));
                    TaskState::TimedOut
                }
                Why::Itself if accepted => TaskState::Succeeded,
                Why::Itself => TaskState::Failed,
            };
            (state, reason, ended_at(*ago))
        }
    };
    record.truncated = found.out.dropped.is_some() || found.err.dropped.is_some();
    record.stdout_bytes = record.stdout_bytes.saturating_add(found.out.dropped.unwrap_or_default());
    record.stderr_bytes = record.stderr_bytes.saturating_add(found.err.dropped.unwrap_or_default());
    record.confirmed = confirmed;
    record.state = state;
    record.reason = reason;
    record.finished_at = Some(finished_at.max(record.started_at.unwrap_or(finished_at)));
    record
}

/// What is said of a script that was ended, and whose supervisor did not live to tell its status.
const UNKNOWN_END: &str = "its exit status is not known";

/// A signal's name without `SIG`, by its number on Linux; its number where it has none that is the same everywhere.
fn signal(number: u8) -> String {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        other => return other.to_string(),
    };
    name.to_owned()
}
