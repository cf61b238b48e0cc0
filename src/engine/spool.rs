//! What a task prints: into the store in pieces, in bounded memory, with the beginning kept at hand.

use super::event::{HEAD_BYTES, Head};
pub use super::listen::Sink;
use super::records::Runs;
use crate::domain::id::InstanceId;
use crate::domain::layout::{RunKeys, Stream};
use crate::port::{Store, StoreError};

/// Bytes per piece: few enough to hold two per task in memory, enough that a gigabyte is a few thousand objects.
const PIECE_BYTES: usize = 256 * 1024;

/// The output of one attempt on its way into the store.
pub struct Spool<S> {
    runs: Runs<S>,
    keys: RunKeys,
    instance: InstanceId,
    attempt: u32,
    limit: u64,
    out: Track,
    err: Track,
    /// The first thing that went wrong with storing; from then on output is only counted.
    failure: Option<StoreError>,
}

#[derive(Default)]
struct Track {
    /// Bytes that the host sent.
    seen: u64,
    /// Where `waiting` begins in the stream.
    stored: u64,
    waiting: Vec<u8>,
    head: Vec<u8>,
}

/// What became of the output of one attempt.
#[derive(Debug)]
pub struct Spooled {
    /// Bytes of standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes of standard error, kept or not.
    pub stderr_bytes: u64,
    /// Whether some were not kept.
    pub truncated: bool,
    /// The beginning of standard output.
    pub stdout: Head,
    /// The beginning of standard error.
    pub stderr: Head,
    /// Why output is missing in the store, where that is not `max_output`.
    pub failure: Option<StoreError>,
}

impl<S: Store> Spool<S> {
    /// Opens the spool of one attempt; at most `limit` bytes of each stream are kept.
    pub fn new(runs: Runs<S>, keys: RunKeys, instance: InstanceId, attempt: u32, limit: u64) -> Self {
        Self { runs, keys, instance, attempt, limit, out: Track::default(), err: Track::default(), failure: None }
    }

    /// Stores the rest and tells what there is.
    pub async fn finish(mut self) -> Spooled {
        self.flush().await;
        self.settle().await;
        let truncated = self.failure.is_some() || self.out.seen > self.limit || self.err.seen > self.limit;
        let head = |track: Track| Head { complete: track.head.len() as u64 == track.stored, bytes: track.head };
        Spooled {
            stdout_bytes: self.out.seen,
            stderr_bytes: self.err.seen,
            truncated,
            stdout: head(self.out),
            stderr: head(self.err),
            failure: self.failure,
        }
    }

    /// Makes durable what was stored: all pieces of an attempt lie beside each other.
    async fn settle(&mut self) {
        if self.out.stored == 0 && self.err.stored == 0 {
            return;
        }
        let key = self.keys.output(&self.instance, self.attempt, Stream::Out, 0);
        if let Err(error) = self.runs.store().settle(&key).await {
            self.failure.get_or_insert(error);
        }
    }

    fn track(&mut self, stream: Stream) -> &mut Track {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    async fn flush_stream(&mut self, stream: Stream) {
        let failed = self.failure.is_some();
        let track = self.track(stream);
        if track.waiting.is_empty() {
            return;
        }
        let piece = std::mem::take(&mut track.waiting);
        let offset = track.stored;
        let length = piece.len() as u64;
        if failed {
            return;
        }
        let key = self.keys.output(&self.instance, self.attempt, stream, offset);
        match self.runs.store().add(&key, piece).await {
            Ok(true) => self.track(stream).stored = offset.saturating_add(length),
            Ok(false) => {
                let why = "this piece of output exists already".to_owned();
                self.failure = Some(StoreError::Damaged { at: key.to_string(), why });
            }
            Err(error) => self.failure = Some(error),
        }
    }
}

impl<S: Store> Sink for Spool<S> {
    async fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let limit = self.limit;
        let track = self.track(stream);
        let room = usize::try_from(limit.saturating_sub(track.seen)).unwrap_or(usize::MAX);
        track.seen = track.seen.saturating_add(bytes.len() as u64);
        let kept = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        let head = HEAD_BYTES.saturating_sub(track.head.len()).min(kept.len());
        track.head.extend_from_slice(kept.get(..head).unwrap_or_default());
        track.waiting.extend_from_slice(kept);
        if track.waiting.len() >= PIECE_BYTES {
            self.flush_stream(stream).await;
        }
    }

    async fn flush(&mut self) {
        self.flush_stream(Stream::Out).await;
        self.flush_stream(Stream::Err).await;
    }
}
