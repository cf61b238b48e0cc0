//! The output of a task, read back piece by piece, in order and in bounded memory.

use std::collections::VecDeque;

use crate::domain::id::{InstanceId, RunId};
use crate::domain::layout::{Key, RunKeys, Stream};
use crate::port::{Store, StoreError};

use super::event::{HEAD_BYTES, Head};
use super::records::{Runs, damaged};

/// How many names of pieces are asked for at a time.
const PAGE: usize = 256;

/// What comes next in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes; the first of them is at `offset`.
    Bytes {
        /// Where they start in the stream.
        offset: u64,
        /// The bytes themselves.
        bytes: Vec<u8>,
    },
    /// The store does not hold what should be here.
    Missing {
        /// The first byte that is missing.
        from: u64,
        /// The first byte after it that is there, or should have been the end.
        to: u64,
    },
}

/// Reads one output stream of one attempt, one piece in memory at a time.
#[derive(Debug)]
pub struct Pieces<'a, S> {
    runs: &'a Runs<S>,
    prefix: String,
    /// Names that are listed and not read yet.
    listed: VecDeque<(u64, Key)>,
    /// The last name that was listed.
    after: Option<Key>,
    /// The last name that was read.
    read: Option<Key>,
    /// Where names were listed a second time, because one seemed to be missing there.
    doubted: Option<u64>,
    /// How far the stream is told, gaps included.
    end: u64,
}

impl<S> Pieces<'_, S> {
    /// What the names of the pieces begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl<'a, S: Store> Pieces<'a, S> {
    /// The pieces of `stream` of this attempt, from its first byte.
    pub fn new(runs: &'a Runs<S>, run: &RunId, instance: &InstanceId, attempt: u32, stream: Stream) -> Self {
        let prefix = RunKeys::new(run).output_prefix(instance, attempt, stream);
        Self { runs, prefix, listed: VecDeque::new(), after: None, read: None, doubted: None, end: 0 }
    }

    /// The number of the next byte: how many have been told so far, gaps included.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The next piece; `None` where there is none yet. While the task runs, ask again later.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where pieces overlap or a name is not one of a piece.
    pub async fn next(&mut self) -> Result<Option<Piece>, StoreError> {
        loop {
            if self.listed.is_empty() {
                self.list().await?;
            }
            let Some((offset, key)) = self.listed.front().cloned() else { return Ok(None) };
            if offset > self.end && self.doubted != Some(self.end) {
                // A list that is made while pieces are added may hold a later one and lack an earlier one.
                self.doubted = Some(self.end);
                self.listed.clear();
                self.after.clone_from(&self.read);
                continue;
            }
            if let Some(gap) = self.missing(offset) {
                return Ok(Some(gap));
            }
            if offset < self.end {
                let why =
                    format!("it starts at byte {offset}, before byte {} where the piece before it ends", self.end);
                return Err(damaged(&key, why));
            }
            self.listed.pop_front();
            self.read = Some(key.clone());
            // Listed and gone is being pruned: the gap shows at the next piece, or at the end.
            if let Some(bytes) = self.runs.store().bytes(&key).await? {
                self.end = offset.saturating_add(bytes.len() as u64);
                return Ok(Some(Piece::Bytes { offset, bytes }));
            }
        }
    }

    /// The beginning of the stream, as it travels with events; it ends before the first gap.
    ///
    /// # Errors
    /// As [`Pieces::next`].
    pub async fn head(mut self) -> Result<Head, StoreError> {
        let mut head = Head { bytes: Vec::new(), complete: false };
        loop {
            match self.next().await? {
                Some(Piece::Bytes { bytes, .. }) => head.bytes.extend_from_slice(&bytes),
                Some(Piece::Missing { .. }) => return Ok(head),
                None => head.complete = true,
            }
            if head.bytes.len() > HEAD_BYTES {
                head.bytes.truncate(HEAD_BYTES);
                return Ok(head);
            }
            if head.complete {
                return Ok(head);
            }
        }
    }

    /// What is missing between here and byte `expected`, which should be there or is the end. Says it once.
    pub fn missing(&mut self, expected: u64) -> Option<Piece> {
        (self.end < expected).then(|| Piece::Missing { from: std::mem::replace(&mut self.end, expected), to: expected })
    }

    /// Lists the names of the next pieces.
    async fn list(&mut self) -> Result<(), StoreError> {
        for key in self.runs.store().list(&self.prefix, self.after.as_ref(), PAGE).await? {
            let offset = key.as_str().strip_prefix(&self.prefix).and_then(|rest| rest.parse().ok());
            let offset = offset.ok_or_else(|| damaged(&key, "its name does not end in an offset"))?;
            self.after = Some(key.clone());
            self.listed.push_back((offset, key));
        }
        Ok(())
    }
}
