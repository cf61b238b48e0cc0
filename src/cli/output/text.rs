//! A run as people follow it: each host's output as it finishes, what went wrong, and how it ended.

use crate::domain::document::between;
use crate::domain::layout::Stream;
use crate::domain::run::Target;
use crate::domain::task::{TaskRecord, TaskState};
use crate::engine::event::Head;
use crate::engine::history::kept;
use crate::engine::pieces::Pieces;
use crate::port::Store;

use super::copy::{copy, is_silent, marked, put, warn_if_cut};
use super::lines::clean;
use super::print::{Finished, Scene};
use super::words::{Style, elapsed, ending};

/// The widest name of a state that columns are made for; `host_key_rejected` is rare enough to stick out.
const STATE_WIDTH: usize = 11;

/// Writes what a finished task had to say, and how it ended unless it succeeded.
pub(super) async fn finished<S: Store>(scene: &mut Scene<S>, task: Finished) {
    let Finished { target, record, stdout, stderr } = task;
    for (stream, head) in [(Stream::Out, stdout), (Stream::Err, stderr)] {
        output(scene, &target, &record, stream, head).await;
    }
    if record.state != TaskState::Succeeded {
        scene.width = scene.width.max(target.instance.as_str().len());
        let line = status(target.instance.as_str(), &record, scene.width, scene.console.err_color());
        scene.console.err(line);
    }
}

/// Writes one output stream of a task, line by line, marked with its host.
async fn output<S: Store>(
    scene: &mut Scene<S>,
    target: &Target,
    record: &TaskRecord,
    stream: Stream,
    head: Option<Head>,
) {
    let console = &mut scene.console;
    let (color, guarded) = match stream {
        Stream::Out => (console.out_color(), console.out_is_terminal()),
        Stream::Err => (console.err_color(), console.err_is_terminal()),
    };
    let host = target.instance.as_str();
    let mut lines = marked(host, stream, Style::of_task(record.state), color, guarded);
    match head {
        Some(head) if head.complete => {
            let mut out = Vec::new();
            lines.feed(&head.bytes, &mut out);
            lines.finish(&mut out);
            put(console, stream, &out);
        }
        _ if is_silent(record, stream) || !console.is_open() => {}
        _ => {
            let Some(run) = &scene.run else { return };
            let expected = kept(record, stream, run.job.max_output);
            let pieces = Pieces::new(&scene.runs, &run.run, &target.instance, record.attempt, stream);
            if let Err(error) = copy(pieces, expected, lines, console, stream).await {
                scene.complain(error);
            }
        }
    }
    if let Some(run) = &scene.run {
        warn_if_cut(&mut scene.console, host, record, stream, run.job.max_output);
    }
}

/// How a task ended, in columns: host, state, exit status or signal, time, reason.
pub fn status(host: &str, record: &TaskRecord, width: usize, color: bool) -> String {
    let state = Style::of_task(record.state).paint(&format!("{:STATE_WIDTH$}", record.state), color);
    let took = between(record.started_at, record.finished_at).map(elapsed).unwrap_or_default();
    let reason = record.reason.as_deref().map(clean).unwrap_or_default();
    let line = format!("{host:width$}  {state}  {:8}  {took:6}  {reason}", ending(record));
    format!("{}\n", line.trim_end())
}
