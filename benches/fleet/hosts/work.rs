//! What a host is asked to do, read off the command without a shell.

use std::time::Duration;

/// What comes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// It ends at once.
    Nothing,
    /// It ends after a time.
    Sleep(Duration),
    /// It prints this many lines of a hundred bytes: `seq -f FORMAT 1 COUNT`.
    Print(usize),
}

impl Work {
    /// Reads `command`, which may stand in quotes and after a program that runs it.
    pub(crate) fn read(command: &str) -> Self {
        let plain = command.replace(['\'', '"'], "");
        let mut words = plain.split_whitespace();
        while let Some(word) = words.next() {
            let number = match word {
                "sleep" => words.next().and_then(|word| word.parse().ok()).map(Duration::from_secs).map(Self::Sleep),
                "seq" => words.nth(3).and_then(|word| word.parse().ok()).map(Self::Print),
                _ => None,
            };
            if let Some(work) = number {
                return work;
            }
        }
        Self::Nothing
    }
}

/// A delivery of sshjob's: one command line, and the rest by standard input.
#[derive(Debug)]
pub(crate) struct Delivery {
    length: usize,
    token: String,
    head: Vec<u8>,
}

impl Delivery {
    /// Reads the command line; `None` where it is any other.
    pub(crate) fn read(command: &str) -> Option<Self> {
        let mut words = command.split_once("' sshjob ")?.1.split(' ').skip(1);
        let (length, token) = (words.next()?, words.next()?);
        Some(Self { length: length.parse().ok()?, token: token.to_owned(), head: Vec::new() })
    }

    /// Takes what came by standard input; once that is all, returns the start marker and what is to be done.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<(String, Work)> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        if before >= self.length || self.head.len() < self.length {
            return None;
        }
        let head = String::from_utf8_lossy(&self.head);
        // The last words that are set, but for those of the programs that start them.
        let words = head.rsplit_once("set -- '").map_or("", |(_, words)| words.split(';').next().unwrap_or_default());
        Some((format!("{} start\n", self.token), Work::read(words)))
    }
}
