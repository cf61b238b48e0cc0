//! What machines read: the documents of a task, a run and an event, told from the records.
//!
//! Every key is always there; what is not known is `null`. Times are RFC 3339 in UTC.

mod event;

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::diagnostic::Diagnostic;
use super::id::{InstanceId, JobName, RunId};
use super::layout::Stream;
use super::run::{RunRecord, RunState, Target};
use super::task::{Counts, TaskRecord, TaskState};

pub use event::EventDocument;

/// How much text of each output stream stands in a document, in bytes of UTF-8.
pub const TEXT_BYTES: usize = 64 * 1024;

/// The version of these documents: [`super::run::SCHEMA`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Schema {
    /// The only one so far.
    #[default]
    #[serde(rename = "sshjob/v1")]
    V1,
}

/// A task, with the beginning of its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TaskDocument {
    /// The run.
    #[schemars(with = "String")]
    pub run: RunId,
    /// The instance, as its inventory calls it.
    #[schemars(with = "String")]
    pub instance: InstanceId,
    /// Host name or address that is connected to.
    pub address: Option<String>,
    /// Where the task stands.
    pub state: TaskState,
    /// Why, in a few words.
    pub reason: Option<String>,
    /// The exit status of the script, where it ended with one.
    pub exit_code: Option<u32>,
    /// The signal that ended the script, without `SIG`.
    pub signal: Option<String>,
    /// The number of the last attempt; 0 before the first.
    pub attempt: u32,
    /// When the last attempt started.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub started_at: Option<Timestamp>,
    /// When the task became final.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<Timestamp>,
    /// Milliseconds between the two.
    pub duration_ms: Option<u64>,
    /// Standard output as text, up to 64 KiB; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// Standard error as text, up to 64 KiB; bytes that are no UTF-8 are replaced.
    pub stderr: String,
    /// Bytes that the script wrote to its standard output; of a lost task at least these.
    pub stdout_bytes: u64,
    /// Bytes that the script wrote to its standard error; of a lost task at least these.
    pub stderr_bytes: u64,
    /// Whether output beyond `max_output` was dropped: then the store does not hold it either.
    pub truncated: bool,
    /// The fingerprint of the host key that was seen, as `SHA256:…`.
    pub host_key: Option<String>,
}

impl TaskDocument {
    /// The task of `run` on `target`; `stdout` and `stderr` as [`text`] gives them.
    pub fn new(run: &RunId, target: &Target, record: &TaskRecord, stdout: String, stderr: String) -> Self {
        Self {
            run: run.clone(),
            instance: target.instance.clone(),
            address: target.address.clone(),
            state: record.state,
            reason: record.reason.clone(),
            exit_code: record.exit_code,
            signal: record.signal.clone(),
            attempt: record.attempt,
            started_at: record.started_at,
            finished_at: record.finished_at,
            duration_ms: between(record.started_at, record.finished_at).map(milliseconds),
            stdout,
            stderr,
            stdout_bytes: record.stdout_bytes,
            stderr_bytes: record.stderr_bytes,
            truncated: record.truncated,
            host_key: record.host_key.clone(),
        }
    }
}

/// A run without its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RunSummary {
    /// The version of the document.
    pub schema: Schema,
    /// The run.
    #[schemars(with = "String")]
    pub run: RunId,
    /// The job that it is a run of.
    #[schemars(with = "String")]
    pub job: JobName,
    /// Where the run stands.
    pub state: RunState,
    /// Why, where the counts do not say it.
    pub reason: Option<String>,
    /// Who asked for it.
    pub actor: String,
    /// The run whose tasks this one runs again.
    #[schemars(with = "Option<String>")]
    pub retry_of: Option<RunId>,
    /// The firing that it is, for a schedule.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub scheduled_for: Option<Timestamp>,
    /// When it was claimed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started_at: Timestamp,
    /// When its last task became final.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<Timestamp>,
    /// How many tasks are in each state that occurs; they add up to the number of targets.
    pub counts: Counts,
}

impl RunSummary {
    /// The run that `record` claims, as it stands.
    pub fn new(
        record: &RunRecord,
        state: RunState,
        reason: Option<String>,
        finished_at: Option<Timestamp>,
        counts: Counts,
    ) -> Self {
        Self {
            schema: Schema::V1,
            run: record.run.clone(),
            job: record.job.name.clone(),
            state,
            reason,
            actor: record.actor.clone(),
            retry_of: record.retry_of.clone(),
            scheduled_for: record.scheduled_for,
            started_at: record.started_at,
            finished_at,
            counts,
        }
    }

    /// From the claim to the verdict, where there is one.
    pub fn took(&self) -> Option<Duration> {
        between(Some(self.started_at), self.finished_at)
    }
}

/// A list of runs, without their tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RunList {
    /// The version of the document.
    pub schema: Schema,
    /// The runs, newest first.
    pub runs: Vec<RunSummary>,
}

/// A run with its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RunDocument {
    /// The run itself.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Its tasks; in a live run in the order in which they end.
    pub tasks: Vec<TaskDocument>,
}

/// A piece of a task's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OutputDocument {
    /// The version of the document.
    pub schema: Schema,
    /// The run.
    #[schemars(with = "String")]
    pub run: RunId,
    /// The instance, as its inventory calls it.
    #[schemars(with = "String")]
    pub instance: InstanceId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// `out` or `err`.
    pub stream: Stream,
    /// At which byte of the stream the piece starts.
    pub offset: u64,
    /// How many bytes the piece has.
    pub bytes: u64,
    /// The piece as text; bytes that are no UTF-8 are replaced. Empty where the piece is missing.
    pub text: String,
    /// Whether the store does not hold these bytes although it should.
    pub missing: bool,
}

/// The output of a run, piece by piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OutputList {
    /// The version of the document.
    pub schema: Schema,
    /// The run.
    #[schemars(with = "String")]
    pub run: RunId,
    /// The pieces, stream by stream.
    pub output: Vec<OutputDocument>,
}

/// What was removed as old, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PruneDocument {
    /// The version of the document.
    pub schema: Schema,
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// The runs, newest first.
    pub runs: Vec<RunSummary>,
    /// What was left of runs whose removal was cut off.
    #[schemars(with = "Vec<String>")]
    pub leftovers: Vec<RunId>,
    /// The SHA-256 of scripts that no run refers to any more.
    pub scripts: Vec<String>,
}

/// What checking job files and the project file has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ValidateDocument {
    /// The version of the document.
    pub schema: Schema,
    /// How many jobs are valid.
    pub jobs: usize,
    /// What is wrong, in the order of file, line and column; empty where nothing is.
    pub errors: Vec<ErrorDocument>,
}

/// An error in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ErrorDocument {
    /// The file; none where the mistake is not in a file.
    pub file: Option<String>,
    /// The line, from 1; none where it concerns the whole file.
    pub line: Option<u32>,
    /// The column, from 1, in characters.
    pub column: Option<u32>,
    /// What is wrong: the thing, what was found, what is allowed.
    pub message: String,
    /// What to do, where there is something.
    pub hint: Option<String>,
}

impl From<Diagnostic> for ErrorDocument {
    fn from(found: Diagnostic) -> Self {
        let Diagnostic { file, place, message, hint } = found;
        Self { file, line: place.map(|place| place.line), column: place.map(|place| place.column), message, hint }
    }
}

/// The time from `start` to `end`; none where one is not known or a clock went backwards.
pub fn between(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<Duration> {
    Duration::try_from(end?.duration_since(start?)).ok()
}

/// `duration` in whole milliseconds.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The beginning of an output stream as text of at most [`TEXT_BYTES`]; bytes that are no UTF-8 are replaced.
///
/// A character that is cut in two where `bytes` ends is left out, unless `complete` says that the stream ends there.
pub fn text(bytes: &[u8], complete: bool) -> String {
    let complete = complete && bytes.len() <= TEXT_BYTES;
    let bytes = bytes.get(..TEXT_BYTES).unwrap_or(bytes);
    let mut text = String::with_capacity(bytes.len());
    let mut read = 0;
    for chunk in bytes.utf8_chunks() {
        read += chunk.valid().len() + chunk.invalid().len();
        text.push_str(chunk.valid());
        let cut = !complete && read == bytes.len() && is_cut(chunk.invalid());
        if !chunk.invalid().is_empty() && !cut {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

/// Whether `bytes` are the beginning of a character.
fn is_cut(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_utf8_stays_as_it_is() {
        assert_eq!(text("grüß\n".as_bytes(), true), "grüß\n");
        assert_eq!(text(b"", true), "");
    }

    #[test]
    fn text_with_invalid_bytes_has_them_replaced() {
        assert_eq!(text(b"a\xff\xfeb", true), "a\u{fffd}\u{fffd}b");
        assert_eq!(text(b"a\xc3", true), "a\u{fffd}");
    }

    #[test]
    fn text_cut_inside_a_character_ends_before_it() {
        assert_eq!(text(b"a\xc3", false), "a");
        assert_eq!(text(b"a\xff", false), "a\u{fffd}");
        let long = "ü".repeat(TEXT_BYTES);
        let shifted = format!("x{long}");
        assert_eq!(text(shifted.as_bytes(), true).len(), TEXT_BYTES - 1);
        assert_eq!(text(long.as_bytes(), true).len(), TEXT_BYTES);
    }

    #[test]
    fn text_that_grows_by_replacement_is_still_bounded() {
        assert!(text(&vec![0xff; TEXT_BYTES], true).len() <= TEXT_BYTES);
    }

    #[test]
    fn between_a_clock_that_went_backwards_is_unknown() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(
            between(at("2026-11-22T22:15:00Z"), at("2026-11-22T22:15:01.5Z")),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(between(at("2026-11-22T22:15:01Z"), at("2026-11-22T22:15:00Z")), None);
        assert_eq!(between(None, at("2026-11-22T22:15:00Z")), None);
    }
}
