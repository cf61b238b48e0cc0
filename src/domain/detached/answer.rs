//! What a host answers: lines that begin with the token, of words that are each taken once. Nothing else is believed.

use std::borrow::Cow;
use std::time::Duration;

use super::Attempt;
use crate::domain::delivery::Token;

/// An answer that is not one of ours, or not all of it: nothing is known by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host's answer {0}")]
pub struct Unreadable(pub(super) &'static str);

impl Unreadable {
    /// The host says itself that it cannot tell.
    pub(super) const UNSEEN: Self = Self("is that its home cannot be looked into: is it mounted?");
}

/// The rest of an answer, taken line by line. Every line of ours begins with the token.
pub(super) struct Lines<'a> {
    token: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// A line is short: two names, a few numbers.
    pub(super) const MAX: usize = 1024;

    pub(super) fn new(token: &'a Token, rest: &'a [u8]) -> Self {
        Self { token: token.as_str().as_bytes(), rest }
    }

    /// The next line, without the token.
    pub(super) fn next(&mut self) -> Result<Cow<'a, str>, Unreadable> {
        let shown = self.rest.get(..Self::MAX).unwrap_or(self.rest);
        let end = shown.iter().position(|byte| *byte == b'\n').ok_or(Unreadable("is cut"))?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        let line = line.strip_prefix(self.token).and_then(|line| line.strip_prefix(b" "));
        // Processes may call themselves anything.
        line.map(String::from_utf8_lossy).ok_or(Unreadable("holds a line that is not ours"))
    }

    /// The next `length` bytes and the line end after them.
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Unreadable("is cut"))?;
        self.rest = rest.strip_prefix(b"\n").ok_or(Unreadable("has other lengths than it says"))?;
        Ok(bytes)
    }

    /// The line that says which attempt the next ones are about.
    pub(super) fn expect(&mut self, attempt: &Attempt) -> Result<(), Unreadable> {
        if self.next()? == format!("look {attempt}") { Ok(()) } else { Err(Unreadable("is about another attempt")) }
    }

    /// The last line, after which there is nothing.
    pub(super) fn end(mut self) -> Result<(), Unreadable> {
        if self.next()? != "end" {
            return Err(Unreadable("goes on after its end"));
        }
        if self.rest.is_empty() { Ok(()) } else { Err(Unreadable("goes on after its end")) }
    }
}

/// The words of a line, each taken once.
pub(super) struct Words<'a>(std::str::Split<'a, char>);

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self(line.split(' '))
    }

    pub(super) fn word(&mut self) -> Result<&'a str, Unreadable> {
        self.0.next().ok_or(Unreadable("lacks a word"))
    }

    pub(super) fn number(&mut self) -> Result<u64, Unreadable> {
        number(self.word()?)
    }

    /// A number, or `-` where there is none.
    pub(super) fn maybe(&mut self) -> Result<Option<u64>, Unreadable> {
        match self.word()? {
            "-" => Ok(None),
            word => number(word).map(Some),
        }
    }

    /// Seconds since boot with two decimals, as /proc/uptime has them, or `-`.
    pub(super) fn uptime(&mut self) -> Result<Option<Duration>, Unreadable> {
        let word = self.word()?;
        if word == "-" {
            return Ok(None);
        }
        let wrong = Unreadable("holds a time that is none");
        let (seconds, hundredths) = word.split_once('.').filter(|(_, rest)| rest.len() == 2).ok_or(wrong)?;
        let (seconds, hundredths) = (number(seconds)?, number(hundredths)?);
        Ok(Some(Duration::from_secs(seconds.min(u64::from(u32::MAX))) + Duration::from_millis(hundredths * 10)))
    }

    pub(super) fn end(mut self) -> Result<(), Unreadable> {
        if self.0.next().is_none() { Ok(()) } else { Err(Unreadable("has a word too many")) }
    }
}

/// Digits and nothing else.
fn number(word: &str) -> Result<u64, Unreadable> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|_| digits).ok_or(Unreadable("holds a number that is none"))
}
