//! Seeing where detached attempts stand, many of one host by one channel.

use std::time::Duration;

use super::{ALIVE, Attempt, ENTER, Lines, OOMS, ROOTS, Unreadable, Words, question};
use crate::domain::delivery::{Parcel, Token, Undeliverable};
use crate::domain::job::Sudo;

const COLLECT: &str = include_str!("collect.sh");

/// The most bytes of output that one answer brings of one stream: 8 MiB.
pub const MAX_PIECE: u32 = 8 << 20;

/// What to tell of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Where it stands, and what its outputs hold from these offsets on, at most `most` bytes of each.
    Look {
        /// Which.
        attempt: Attempt,
        /// How much of its standard output is known.
        out: u64,
        /// How much of its standard error is known.
        err: u64,
        /// At most [`MAX_PIECE`].
        most: u32,
    },
    /// Nothing: its outcome and output are kept elsewhere, its directory is to go.
    Forget(Attempt),
}

/// Where an attempt stands, in time of the host's own since its boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It runs, or is about to or has just ended.
    Running {
        /// How long it has been running.
        elapsed: Duration,
        /// Whether its supervisor is alive; without it nobody will learn how it ends.
        supervised: bool,
        /// When its watch last beat.
        beat: Option<Duration>,
    },
    /// It ended, and how is known.
    Ended {
        /// With what.
        how: How,
        /// Of itself, or not.
        why: Why,
        /// How long it ran.
        took: Duration,
        /// How long ago it ended; none where the host has been restarted since.
        ago: Option<Duration>,
    },
    /// The host was restarted before it ended.
    Rebooted,
    /// It is gone without a status.
    Killed {
        /// Whether it was asked to end before.
        why: Why,
        /// Whether its host has ended a process for want of memory meanwhile.
        out_of_memory: bool,
    },
    /// Its directory is not there, and where it would be can be looked into.
    Vanished,
}

/// What a program ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// An exit status.
    Exit(u8),
    /// A signal, by its number on the host.
    Signal {
        /// The number.
        number: u8,
        /// Whether it was SIGKILL while its host has ended processes for want of memory.
        out_of_memory: bool,
    },
}

/// Whether somebody ended a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody of ours.
    Itself,
    /// Its supervisor, at its time.
    TimedOut,
    /// Somebody who cancelled it.
    Cancelled,
}

/// What is new of an output stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// The bytes from the offset that was asked for on.
    pub bytes: Vec<u8>,
    /// How many bytes the host has stored by now.
    pub stored: u64,
    /// How many it has dropped beyond `max_output`, as far as it has counted; none where it has dropped none.
    pub dropped: Option<u64>,
}

/// What a host tells of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it stands.
    pub verdict: Verdict,
    /// Its standard output.
    pub out: Piece,
    /// Its standard error.
    pub err: Piece,
}

/// What to send to a host to have these questions answered, as whom its jobs run.
///
/// # Errors
/// A user whom nobody can become.
pub fn parcel(sudo: &Sudo, token: &Token, asks: &[Ask]) -> Result<Parcel, Undeliverable> {
    let call = |ask: &Ask| match ask {
        Ask::Look { attempt, out, err, most } => {
            let most = (*most).min(MAX_PIECE);
            format!("sshjob_look {attempt} {} {} {most}\n", (*out).min(super::MAX_BYTES), (*err).min(super::MAX_BYTES))
        }
        Ask::Forget(attempt) => format!("sshjob_forget {attempt}\n"),
    };
    question(sudo, token, &[ALIVE, OOMS, ROOTS, ENTER, COLLECT], &asks.iter().map(call).collect::<String>())
}

/// The most bytes that the answer to `asks` has: what is beyond need not be read.
pub fn max_answer(asks: &[Ask]) -> u64 {
    let of = |ask: &Ask| match ask {
        // Six lines, and up to one block before what was asked for.
        Ask::Look { most, .. } => 6 * Lines::MAX as u64 + 2 * (4096 + u64::from((*most).min(MAX_PIECE))),
        Ask::Forget(_) => 2 * Lines::MAX as u64,
    };
    Lines::MAX as u64 + asks.iter().map(of).sum::<u64>()
}

/// Reads the whole of what a host wrote to its standard output after the start marker: one [`Found`] for each ask.
///
/// # Errors
/// [`Unreadable`] where it is not exactly the answer to `asks`: nothing is known by it.
pub fn read(token: &Token, asks: &[Ask], answer: &[u8]) -> Result<Vec<Found>, Unreadable> {
    let mut lines = Lines::new(token, answer);
    let found = asks.iter().map(|ask| found(&mut lines, ask)).collect::<Result<_, _>>()?;
    lines.end()?;
    Ok(found)
}

fn found(lines: &mut Lines<'_>, ask: &Ask) -> Result<Found, Unreadable> {
    let (attempt, offsets) = match ask {
        Ask::Look { attempt, out, err, most } => (attempt, Some((*out, *err, *most))),
        Ask::Forget(attempt) => (attempt, None),
    };
    lines.expect(attempt)?;
    let verdict = verdict(Words::new(&lines.next()?))?;
    if verdict == Verdict::Vanished {
        return Ok(Found { verdict, out: Piece::default(), err: Piece::default() });
    }
    let (out, err, most) = offsets.ok_or(Unreadable("to a removal is not `vanished`"))?;
    let err = piece(lines, "err", err, most)?;
    let out = piece(lines, "out", out, most)?;
    Ok(Found { verdict, out, err })
}

fn verdict(mut words: Words<'_>) -> Result<Verdict, Unreadable> {
    let verdict = match words.word()? {
        "unseen" => return Err(Unreadable::UNSEEN),
        "vanished" => Verdict::Vanished,
        "rebooted" => Verdict::Rebooted,
        "running" => {
            let supervised = match words.word()? {
                "yes" => true,
                "no" => false,
                _ => return Err(Unreadable("holds an unknown word")),
            };
            let (began, beat, now) = (words.uptime()?, words.uptime()?, words.uptime()?);
            let elapsed = since(began, now).ok_or(Unreadable("lacks a time"))?;
            Verdict::Running { elapsed, supervised, beat: since(beat, now) }
        }
        "killed" => {
            let why = match words.word()? {
                "-" => Why::Itself,
                word => why(word)?,
            };
            let (before, after) = (words.maybe()?, words.maybe()?);
            Verdict::Killed { why, out_of_memory: before.zip(after).is_some_and(|(before, after)| after > before) }
        }
        kind => {
            let number = u8::try_from(words.number()?).map_err(|_| Unreadable("holds a status that is none"))?;
            let why = why(words.word()?)?;
            let (began, ended, now) = (words.uptime()?, words.uptime()?, words.uptime()?);
            let took = since(began, ended).ok_or(Unreadable("lacks a time"))?;
            let (before, after) = (words.maybe()?, words.maybe()?);
            let grew = before.zip(after).is_some_and(|(before, after)| after > before);
            let how = match kind {
                "exit" => How::Exit(number),
                "signal" if number > 0 => How::Signal { number, out_of_memory: number == 9 && grew },
                _ => return Err(Unreadable("holds an unknown word")),
            };
            Verdict::Ended { how, why, took, ago: since(ended, now) }
        }
    };
    words.end()?;
    Ok(verdict)
}

fn why(word: &str) -> Result<Why, Unreadable> {
    match word {
        "done" => Ok(Why::Itself),
        "timed_out" => Ok(Why::TimedOut),
        "cancelled" => Ok(Why::Cancelled),
        _ => Err(Unreadable("holds an unknown word")),
    }
}

fn since(earlier: Option<Duration>, later: Option<Duration>) -> Option<Duration> {
    earlier.zip(later).map(|(earlier, later)| later.saturating_sub(earlier))
}

fn piece(lines: &mut Lines<'_>, name: &str, offset: u64, most: u32) -> Result<Piece, Unreadable> {
    let line = lines.next()?;
    let mut words = Words::new(&line);
    if words.word()? != name {
        return Err(Unreadable("lacks an output"));
    }
    let (stored, dropped, skip, length) = (words.number()?, words.maybe()?, words.number()?, words.number()?);
    words.end()?;
    // As much as there is, and no more than was asked for: a host that says anything else is not believed.
    let expected = stored.saturating_sub(offset).min(u64::from(most.min(MAX_PIECE)));
    if length != expected || skip != if length == 0 { 0 } else { offset % 4096 } {
        return Err(Unreadable("brings other bytes than were asked for"));
    }
    let (skip, length) = (usize::try_from(skip), usize::try_from(length));
    let (Ok(skip), Ok(length)) = (skip, length) else { return Err(Unreadable("is too large")) };
    let bytes = lines.bytes(skip + length)?.get(skip..).unwrap_or_default().to_vec();
    Ok(Piece { bytes, stored, dropped })
}
