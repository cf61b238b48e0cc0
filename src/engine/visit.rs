//! One host of a detached run: asked where its task stands, or to end it; what it tells is stored.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Seen;
use super::collect::Collector;
use super::conclude::{conclude, heard, unheard};
use super::gate::Gate;
use super::notes::Notes;
use super::question::{ask, token};
use super::records::damaged;
use super::task::judge;
use crate::adapter::ssh::{Channel, ConnectError, Connection};
use crate::domain::detached::collect::{self, Ask, Found, Piece};
use crate::domain::detached::{Attempt, cancel};
use crate::domain::job::Job;
use crate::domain::layout::{RunKeys, Stream};
use crate::domain::run::{RunRecord, Target};
use crate::domain::task::{TaskRecord, TaskState};
use crate::port::{Store, StoreError};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// Bytes of each stream that one answer brings. It is in memory twice, as it came and as it was read: with both streams of
/// all hosts that are asked at a time, a hundred MiB at worst, of the 256 that a worker function has.
const MOST: u32 = 256 << 10;

/// Answers of one host before its record is written.
const ANSWERS: u32 = 32;

/// Bytes per piece of output in the store.
const PIECE_BYTES: usize = 256 * 1024;

/// What is to be done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// To see where it stands.
    Look,
    /// To end it, and to see where it stands then.
    End,
}

/// A task that is looked after on its host.
pub(super) struct Call<'a, S> {
    collector: &'a Collector<S>,
    run: &'a RunRecord,
    notes: &'a Notes<'a, S>,
    /// Where it runs.
    pub(super) target: Target,
    /// What the store was last seen to say of it.
    pub(super) record: TaskRecord,
    /// What was still there of it when it was ended.
    pub(super) survivors: Option<String>,
    /// The connection of the visit before, where there was a permit to keep it.
    line: Option<(Connection, OwnedSemaphorePermit)>,
}

impl<'a, S: Store> Call<'a, S> {
    /// Looks after the task on `target`, of which the store says `record`.
    pub(super) const fn new(
        collector: &'a Collector<S>,
        run: &'a RunRecord,
        notes: &'a Notes<'a, S>,
        target: Target,
        record: TaskRecord,
    ) -> Self {
        Self { collector, run, notes, target, record, survivors: None, line: None }
    }

    /// Asks the host, and stores what it tells; returns whether it has more output. The connection is kept for the next
    /// visit where `kept` has a permit left.
    ///
    /// # Errors
    /// Why nothing was learned of a task that is not final, for people.
    pub(super) async fn visit(&mut self, errand: Errand, kept: Option<&Arc<Semaphore>>) -> Result<bool, String> {
        let missed = match self.reach(errand, kept).await {
            Ok(more) => return Ok(more),
            Err(missed) => missed,
        };
        if self.is_over().await {
            // Another collector has had the host forget what we were about to read.
            return Ok(false);
        }
        match missed {
            Missed::Host(why) if self.give_up(&why).await => Ok(false),
            Missed::Host(why) | Missed::Store(why) => Err(why),
        }
    }

    /// Notes that the host could not be asked; tells whether the task is final by that.
    async fn give_up(&mut self, why: &str) -> bool {
        let noted = unheard(self.record.clone(), why, self.run, self.collector.clock.now());
        if noted != self.record {
            match self.notes.write(&self.target.instance, noted).await {
                Ok(record) => self.record = record,
                Err(error) => tracing::info!(instance = %self.target.instance, error, "its silence is not noted"),
            }
        }
        self.record.state.is_final()
    }

    /// Lets go of the host.
    pub(super) async fn hang_up(&mut self) {
        if let Some((connection, _)) = self.line.take() {
            connection.close().await;
        }
    }

    async fn reach(&mut self, errand: Errand, kept: Option<&Arc<Semaphore>>) -> Result<bool, Missed> {
        if let Some((connection, permit)) = self.line.take() {
            if let Ok(more) = self.run(&connection, errand).await {
                self.line = Some((connection, permit));
                return Ok(more);
            }
            // That it has broken since is no news of the host.
            connection.close().await;
        }
        let (job, steps) = (&self.run.job, Arc::default());
        let connected = self.collector.access.connect(job, &self.target, &Seen::default(), &steps).await;
        let connection = connected.map_err(|error| Missed::connection(&error))?;
        let told = self.run(&connection, errand).await;
        match kept.and_then(|kept| Arc::clone(kept).try_acquire_owned().ok()) {
            Some(permit) if told.is_ok() => self.line = Some((connection, permit)),
            _ => connection.close().await,
        }
        told
    }

    /// Whether the task is final by now, whoever has found that out.
    async fn is_over(&mut self) -> bool {
        let Ok(Some((outcomes, _))) = self.collector.runs.outcomes(&self.run.run, self.notes.n).await else {
            return false;
        };
        let Some(record) = outcomes.tasks.get(&self.target.instance) else { return false };
        self.record.clone_from(record);
        record.state.is_final()
    }

    async fn run(&mut self, connection: &Connection, errand: Errand) -> Result<bool, Missed> {
        let Target { instance, .. } = &self.target;
        let attempt = Attempt { run: self.run.run.clone(), instance: instance.clone(), number: self.record.attempt };
        let visit = Visit { collector: self.collector, connection, run: self.run, target: &self.target };
        if errand == Errand::End {
            self.survivors = visit.end(&attempt).await.map_err(Missed::Host)?;
            if self.survivors.is_some() {
                // Whoever sees how it ended has this to tell with it, even if that is somebody else.
                let noted = TaskRecord { survivors: self.survivors.clone(), ..self.record.clone() };
                self.record = self.notes.write(instance, noted).await.map_err(Missed::Store)?;
            }
        }
        let (mut record, mut more, mut failure) = (self.record.clone(), false, None);
        for _ in 0..ANSWERS {
            match visit.learn(&attempt, &record).await {
                Ok((learned, all)) => {
                    let is_news = learned != record;
                    (record, more) = (heard(learned, is_news, self.collector.clock.now()), !all);
                }
                Err(why) => failure = Some(why),
            }
            if !more || failure.is_some() {
                break;
            }
        }
        // Of a start that is not confirmed somebody else may know the end.
        if record != self.record || !record.confirmed {
            self.record = self.notes.write(instance, record).await.map_err(Missed::Store)?;
        }
        // What may still run there is left to be looked at.
        let runs_on = self.record.state == TaskState::Lost && self.record.overdue_since.is_some();
        if self.record.state.is_final() && !runs_on {
            visit.forget(attempt).await;
        }
        match failure {
            // It was told to end; what came of it the next visit will see.
            Some(Missed::Host(why) | Missed::Store(why)) if errand == Errand::End => {
                tracing::info!(%instance, why, "how it ended is not known yet");
            }
            Some(missed) => return Err(missed),
            None => {}
        }
        Ok(more)
    }
}

/// Why nothing was learned of a task, for people.
enum Missed {
    /// Its host cannot be reached, lets nobody in, or does not answer in our words.
    Host(String),
    /// The store does not answer.
    Store(String),
}

impl Missed {
    fn connection(error: &ConnectError) -> Self {
        match error {
            ConnectError::TrustUnavailable { .. } => Self::Store(error.to_string()),
            _ => Self::Host(error.to_string()),
        }
    }
}

/// One connection to one host.
struct Visit<'a, S> {
    collector: &'a Collector<S>,
    connection: &'a Connection,
    run: &'a RunRecord,
    target: &'a Target,
}

impl<S: Store> Visit<'_, S> {
    async fn channel(&self) -> Result<Channel, String> {
        let opened = self.connection.open(self.run.job.login.connect_timeout.0).await;
        opened.map_err(|error| error.to_string())
    }

    /// Asks once where the attempt stands, and stores what is new of its output; tells whether that is all there is.
    async fn learn(&self, attempt: &Attempt, record: &TaskRecord) -> Result<(TaskRecord, bool), Missed> {
        let found = self.look(attempt, record).await.map_err(Missed::Host)?;
        let stored = self.store_output(record, &found).await;
        let (kept, all) = stored.map_err(|error| Missed::Store(Fault(error).to_string()))?;
        Ok((if all { conclude(kept, &found, self.run, self.collector.clock.now()) } else { kept }, all))
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
        if !found.out.bytes.is_empty() || !found.err.bytes.is_empty() {
            // All pieces of an attempt lie beside each other.
            let key = RunKeys::new(&self.run.run).output(&self.target.instance, record.attempt, Stream::Out, 0);
            self.collector.runs.store().settle(&key).await?;
        }
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
            if store.add(&key, bytes.to_vec()).await? {
                (at, rest) = (at + bytes.len() as u64, after);
                continue;
            }
            let stored = store.bytes(&key).await?.ok_or_else(|| damaged(&key, "it vanished"))?.len();
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
