//! What functions log: one JSON object per line, per task and per run; never a key, a secret or a script's text.

use std::fmt::Debug;
use std::io::Write as _;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use super::refusal::Refusal;
use crate::domain::id::RunId;
use crate::domain::run::{RunRecord, Target, Verdict};
use crate::domain::task::TaskRecord;

/// Writes one line.
pub fn line(entry: &Value) {
    // A log that nobody takes is no reason not to work.
    let _ = writeln!(std::io::stdout().lock(), "{entry}");
}

/// Lets the engine's warnings be lines of the log, too; of libraries nothing, for what they tell is what goes over the wire.
pub fn listen() {
    let ours = Targets::new().with_target("sshjob", LevelFilter::WARN);
    // Whoever listens already goes on.
    let _ = Registry::default().with(Lines.with_filter(ours)).try_init();
}

/// Writes what it is told as a line.
struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let level = if *event.metadata().level() == Level::ERROR { "ERROR" } else { "WARN" };
        line(&json!({ "level": level, "event": "engine", "told": fields.0 }));
    }
}

/// The fields of an event.
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
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

/// A tick was made: what came of it. An alarm hears where there is none of these.
pub fn tick(answer: &Value) {
    line(&json!({ "level": "INFO", "event": "tick", "answer": answer }));
}

/// What went wrong that is tried again, and that somebody may have to mend: with what, and why. An alarm hears of these.
pub fn failure(run: Option<&RunId>, what: &str, kind: &str, why: &str) {
    line(&json!({
        "level": "WARN", "event": "failure", "run": run, "what": what, "errorType": kind, "errorMessage": why,
    }));
}

/// What was not done, as it was to be: with what, and why.
pub fn trouble(run: Option<&RunId>, what: &str, why: &str) {
    line(&json!({ "level": "WARN", "event": "trouble", "run": run, "what": what, "why": why }));
}

/// An event came to nothing.
pub fn refusal(refusal: &Refusal) {
    line(&json!({
        "level": "ERROR", "event": "refused", "errorType": refusal.kind.as_str(), "errorMessage": refusal.message,
    }));
}
