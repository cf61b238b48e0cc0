//! What functions log: one JSON object per line, per task and per run; never a key, a secret or a script's text.

use std::io::Write as _;

use serde_json::{Value, json};

use super::refusal::Refusal;
use crate::domain::id::RunId;
use crate::domain::run::{RunRecord, Target, Verdict};
use crate::domain::task::TaskRecord;

/// Writes one line.
pub fn line(entry: &Value) {
    // A log that nobody takes is no reason not to work.
    let _ = writeln!(std::io::stdout().lock(), "{entry}");
}

/// A task is final, or runs detached.
pub fn task(run: &RunRecord, target: &Target, record: &TaskRecord) {
    let took = record.started_at.zip(record.finished_at).map(|(from, to)| to.duration_since(from).as_millis());
    line(&json!({
        "level": "INFO", "event": "task", "run": run.run, "job": run.job.name, "instance": target.instance,
        "state": record.state, "reason": record.reason, "exit_code": record.exit_code, "attempt": record.attempt,
        "duration_ms": took.and_then(|took| i64::try_from(took).ok()),
    }));
}

/// A run has its verdict.
pub fn verdict(run: &RunRecord, verdict: &Verdict) {
    let took = verdict.finished_at.duration_since(run.started_at).as_millis();
    line(&json!({
        "level": "INFO", "event": "run", "run": run.run, "job": run.job.name, "instance": null,
        "state": verdict.state, "reason": verdict.reason, "counts": verdict.counts,
        "duration_ms": i64::try_from(took).ok(),
    }));
}

/// What could not be done, and is tried again: with what, and why.
pub fn trouble(run: Option<&RunId>, what: &str, why: &str) {
    line(&json!({ "level": "WARN", "event": "trouble", "run": run, "what": what, "why": why }));
}

/// An event came to nothing.
pub fn refusal(refusal: &Refusal) {
    line(&json!({
        "level": "ERROR", "event": "refused", "errorType": refusal.kind.as_str(), "errorMessage": refusal.message,
    }));
}
