//! One question to a host, one answer: how detached jobs are started, looked at and ended.

use std::time::Duration;

use super::clock;
use super::gate::Gate;
use super::listen::{Heard, Sink, listen};
use crate::adapter::ssh::Channel;
use crate::domain::delivery::{Parcel, Token};
use crate::domain::job::Job;
use crate::domain::layout::Stream;
use crate::domain::quantity::Span;

/// The answer to a question, as far as it was heard.
pub(super) struct Answer {
    /// What was heard of its course.
    pub(super) heard: Heard,
    /// What came on standard output after the start marker; empty where it was more than was asked for.
    pub(super) bytes: Vec<u8>,
}

/// A fresh token.
///
/// # Errors
/// Where the system has no random numbers.
pub(super) fn token() -> Result<Token, String> {
    clock::random().map(Token::new).map_err(|error| format!("no random numbers: {error}"))
}

/// Delivers `parcel` and gathers at most `most` bytes of answer, `within` the time from its start.
pub(super) async fn ask(
    channel: Channel,
    token: &Token,
    parcel: &Parcel,
    job: &Job,
    gate: &Gate,
    most: u64,
    within: Duration,
) -> Answer {
    let job = Job { timeout: Span(within), ..job.clone() };
    let mut gathered = Gathered { bytes: Vec::new(), most: usize::try_from(most).unwrap_or(usize::MAX), over: false };
    let heard = listen(channel, token, parcel, &job, gate, &mut gathered).await;
    let bytes = if gathered.over { Vec::new() } else { gathered.bytes };
    Answer { heard, bytes }
}

/// Standard output, up to a limit.
struct Gathered {
    bytes: Vec<u8>,
    most: usize,
    over: bool,
}

impl Sink for Gathered {
    async fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Err || self.over {
            return;
        }
        if self.bytes.len() + bytes.len() > self.most {
            // Nothing is known by an answer that is longer than it can be.
            (self.over, self.bytes) = (true, Vec::new());
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    async fn flush(&mut self) {}
}
