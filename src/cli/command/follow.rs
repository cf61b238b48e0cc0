//! `sshjob logs --follow`: a run's output as it comes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::output::copy::{missing, put, warn_if_cut};
use crate::cli::output::lines::Lines;
use crate::domain::id::{InstanceId, RunId};
use crate::domain::layout::Stream;
use crate::domain::quantity::ByteSize;
use crate::domain::task::TaskRecord;
use crate::engine::history::{Task, kept};
use crate::engine::pieces::{Piece, Pieces};
use crate::engine::records::Runs;
use crate::port::{Store, StoreError};

use super::logs::{Args, Source, attempts};
use super::status::current;

/// How often new output is looked for.
const POLL: Duration = Duration::from_millis(500);

/// How many pieces of one stream are shown before others have their turn: 4 MiB, where it is a flood.
const TURN: usize = 16;

/// A line is held until it is whole, so that hosts do not write into each other's; a longer one is broken.
const LINE_BYTES: usize = 64 * 1024;

/// One stream that is followed.
struct Tail<'a, S> {
    pieces: Pieces<'a, S>,
    lines: Lines,
    /// Where it goes.
    to: Stream,
    stream: Stream,
    /// The beginning of a line whose end is still to come.
    held: Vec<u8>,
}

/// What came of a turn.
#[derive(Clone, Copy, Default)]
struct Turn {
    /// Whether something was missing.
    gapped: bool,
    /// Whether there is more to show than fits into a turn.
    more: bool,
}

impl Turn {
    /// Both turns as one.
    fn and(self, other: Self) -> Self {
        Self { gapped: self.gapped || other.gapped, more: self.more || other.more }
    }
}

impl<S: Store> Tail<'_, S> {
    /// Shows the whole lines that have come since, as far as they fit into a turn.
    async fn advance(&mut self, console: &mut Console) -> Result<Turn, StoreError> {
        let mut gapped = false;
        for _ in 0..TURN {
            let Some(piece) = self.pieces.next().await? else { return Ok(Turn { gapped, more: false }) };
            match piece {
                Piece::Bytes { bytes, .. } => self.held.extend_from_slice(&bytes),
                Piece::Missing { from, to } => {
                    gapped = true;
                    self.end_line(console);
                    console.err(missing(&self.pieces, from, to));
                }
            }
            let end = self.held.iter().rposition(|byte| *byte == b'\n').map(|newline| newline + 1);
            let rest = self.held.split_off(end.unwrap_or_default());
            let mut out = Vec::new();
            self.lines.feed(&std::mem::replace(&mut self.held, rest), &mut out);
            put(console, self.to, &out);
            if self.held.len() > LINE_BYTES {
                self.end_line(console);
            }
        }
        Ok(Turn { gapped, more: true })
    }

    /// Shows the line that is held, as it is.
    fn end_line(&mut self, console: &mut Console) {
        let mut out = Vec::new();
        self.lines.feed(&std::mem::take(&mut self.held), &mut out);
        self.lines.finish(&mut out);
        put(console, self.to, &out);
    }

    /// Shows the end of a stream that nothing is added to any more, of which all was shown that is there. Returns whether
    /// something was missing.
    fn finish(&mut self, expected: Option<u64>, console: &mut Console) -> bool {
        self.end_line(console);
        let Some(Piece::Missing { from, to }) = expected.and_then(|expected| self.pieces.missing(expected)) else {
            return false;
        };
        console.err(missing(&self.pieces, from, to));
        true
    }
}

/// The streams of the attempt that is shown of a task.
struct Followed<'a, S> {
    attempt: u32,
    tails: Vec<Tail<'a, S>>,
}

impl<'a, S: Store> Followed<'a, S> {
    fn new(args: &Args, runs: &'a Runs<S>, run: &RunId, task: &Task, attempt: u32, console: &Console) -> Self {
        let tail = |(stream, to)| Tail {
            pieces: Pieces::new(runs, run, &task.target.instance, attempt, stream),
            lines: Source { run, task, attempt, stream }.lines(args, to, console),
            to,
            stream,
            held: Vec::new(),
        };
        Self { attempt, tails: args.streams().into_iter().map(tail).collect() }
    }

    /// Whether `record`, which tells of output once it is stored, tells of more than was shown.
    fn is_behind(&self, record: &TaskRecord) -> bool {
        let stored = |stream| if stream == Stream::Out { record.stdout_bytes } else { record.stderr_bytes };
        self.tails.iter().any(|tail| tail.pieces.end() < stored(tail.stream))
    }

    async fn advance(&mut self, console: &mut Console) -> Result<Turn, StoreError> {
        let mut turn = Turn::default();
        for tail in &mut self.tails {
            turn = turn.and(tail.advance(console).await?);
        }
        Ok(turn)
    }

    /// Shows the end of an attempt that is over, once all before it was shown.
    async fn finish(&mut self, task: &Task, max: ByteSize, console: &mut Console) -> Result<Turn, StoreError> {
        let mut turn = self.advance(console).await?;
        if turn.more {
            return Ok(turn);
        }
        let last = self.attempt == task.record.attempt;
        for tail in &mut self.tails {
            let expected = kept(&task.record, tail.stream, max).filter(|_| last);
            turn.gapped |= tail.finish(expected, console);
            if last {
                warn_if_cut(console, task.target.instance.as_str(), &task.record, tail.stream, max);
            }
        }
        Ok(turn)
    }
}

/// Shows what comes from `hosts`, from all where none is named, until the run is finished or nobody reads it any more.
///
/// # Errors
/// What kept it from being done; also that some of the output is missing.
pub(super) async fn follow<S: Store>(
    args: &Args,
    run: &RunId,
    hosts: &HashSet<InstanceId>,
    runs: &Runs<S>,
    console: &mut Console,
) -> Result<Exit, Fail> {
    let mut followed: HashMap<InstanceId, Followed<'_, S>> = HashMap::new();
    let mut done = HashSet::new();
    let mut all = Turn::default();
    while console.is_open() {
        // The records first: what they call final has written its last.
        let view = current(runs, run, console).await?;
        all.more = false;
        for task in view.tasks.iter().filter(|task| hosts.is_empty() || hosts.contains(&task.target.instance)) {
            let instance = &task.target.instance;
            if task.record.attempt == 0 || done.contains(instance) {
                continue;
            }
            let max = view.record.job.max_output;
            let first = *attempts(&view, task, args.all_attempts).start();
            let earliest = *attempts(&view, task, true).start();
            let fresh = |attempt, console: &Console| Followed::new(args, runs, run, task, attempt, console);
            let shown = followed.entry(instance.clone()).or_insert_with(|| fresh(first, console));
            let is_over = task.record.state.is_final() || shown.attempt < task.record.attempt;
            let turn = if is_over {
                shown.finish(task, max, console).await?
            } else if !view.record.job.mode.is_detached() || shown.is_behind(&task.record) {
                shown.advance(console).await?
            } else {
                Turn::default()
            };
            all = all.and(turn);
            if is_over && !turn.more {
                if shown.attempt < task.record.attempt {
                    *shown = fresh(earliest.max(shown.attempt + 1), console);
                    all.more = true;
                } else {
                    followed.remove(instance);
                    done.insert(instance.clone());
                }
            }
        }
        if all.more {
            continue;
        }
        if view.verdict.is_some() {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    if all.gapped { Err(Fail::new(Exit::Unavailable, "some of the output is missing")) } else { Ok(Exit::Success) }
}
