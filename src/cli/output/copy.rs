//! A task's output on its way from the store, or from the event that brings its beginning, to the console.

use crate::domain::id::RunId;
use crate::domain::layout::Stream;
use crate::domain::quantity::ByteSize;
use crate::domain::run::Target;
use crate::domain::task::{TaskRecord, TaskState};
use crate::engine::event::Head;
use crate::engine::pieces::{Piece, Pieces};
use crate::engine::records::Runs;
use crate::port::{Store, StoreError};

use super::console::Console;
use super::lines::Lines;
use super::words::Style;

/// Lines of `host`'s `stream`: standard output is marked `|`, standard error `!`.
pub fn marked(host: &str, stream: Stream, style: Style, color: bool, guarded: bool) -> Lines {
    let mark = match stream {
        Stream::Out => '|',
        Stream::Err => '!',
    };
    Lines::new(format!("{} ", style.paint(&format!("{host} {mark}"), color)), guarded)
}

/// Writes `bytes` where `stream` goes.
pub fn put(console: &mut Console, stream: Stream, bytes: &[u8]) {
    match stream {
        Stream::Out => console.out(bytes),
        Stream::Err => console.err(bytes),
    }
}

/// Copies what is there of a stream, to `to`, one piece at a time. Says on standard error what is missing.
///
/// With `expected` the stream should have that many bytes. Returns whether nothing was missing.
///
/// # Errors
/// Where the store cannot be read; what was read until then is written.
pub async fn copy<S: Store>(
    mut pieces: Pieces<'_, S>,
    expected: Option<u64>,
    mut lines: Lines,
    console: &mut Console,
    to: Stream,
) -> Result<bool, StoreError> {
    let mut whole = true;
    let mut out = Vec::new();
    let end = loop {
        let piece = match pieces.next().await {
            Ok(Some(piece)) => Some(piece),
            Ok(None) => expected.and_then(|expected| pieces.missing(expected)),
            Err(error) => break Err(error),
        };
        match piece {
            _ if !console.is_open() => break Ok(whole),
            None => break Ok(whole),
            Some(Piece::Bytes { bytes, .. }) => lines.feed(&bytes, &mut out),
            Some(Piece::Missing { from, to: end }) => {
                whole = false;
                lines.finish(&mut out);
                console.err(missing(&pieces, from, end));
            }
        }
        put(console, to, &out);
        out.clear();
    };
    lines.finish(&mut out);
    put(console, to, &out);
    end
}

/// The warning that bytes are missing.
pub fn missing<S>(pieces: &Pieces<'_, S>, from: u64, to: u64) -> String {
    format!("warning: bytes {from} to {} of `{}*` are missing in the store\n", to.saturating_sub(1), pieces.prefix())
}

/// Says, where `host` wrote more to `stream` than is kept, that it did.
pub fn warn_if_cut(console: &mut Console, host: &str, record: &TaskRecord, stream: Stream, max_output: ByteSize) {
    let (bytes, unstored, name) = match stream {
        Stream::Out => (record.stdout_bytes, record.stdout_unstored, "output"),
        Stream::Err => (record.stderr_bytes, record.stderr_unstored, "error"),
    };
    if unstored.is_some() {
        console.err(format!("warning: {host} could not store all of its standard {name}: is its disk full?\n"));
    } else if record.truncated && bytes > max_output.0 {
        console.err(format!(
            "warning: {host} wrote {bytes} bytes to standard {name}; beyond `max_output` only the first {max_output} are kept\n"
        ));
    }
}

/// The beginning of a stream of the last attempt: what the event brought, else read from the store.
///
/// # Errors
/// Where the store cannot be read.
pub async fn head<S: Store>(
    runs: &Runs<S>,
    run: &RunId,
    target: &Target,
    record: &TaskRecord,
    stream: Stream,
    brought: Option<Head>,
) -> Result<Head, StoreError> {
    match brought {
        Some(head) => Ok(head),
        None if is_silent(record, stream) => Ok(Head { bytes: Vec::new(), complete: true }),
        None => Pieces::new(runs, run, &target.instance, record.attempt, stream).head().await,
    }
}

/// Whether it is known that nothing was written to `stream`.
pub fn is_silent(record: &TaskRecord, stream: Stream) -> bool {
    let bytes = match stream {
        Stream::Out => record.stdout_bytes,
        Stream::Err => record.stderr_bytes,
    };
    // What is recorded of a running or lost task may be older than its output.
    bytes == 0 && record.state.is_final() && record.state != TaskState::Lost || record.attempt == 0
}
