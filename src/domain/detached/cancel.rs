//! Ending a detached attempt: what was asked to end, and who is still there.

use super::{ALIVE, Attempt, ENTER, Lines, ROOTS, STOP, Unreadable, Words, question};
use crate::domain::delivery::{Parcel, Token, Undeliverable};
use crate::domain::job::Sudo;

const CANCEL: &str = include_str!("cancel.sh");

/// The most survivors that are named.
const MAX_NAMED: usize = 64;

/// What a host did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The program ran: its group was sent SIGTERM and, where ten seconds were not enough, SIGKILL.
    Signalled,
    /// Nothing of it ran any more.
    Over,
    /// The attempt's directory is not there.
    Vanished,
}

/// A process that is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its number.
    pub pid: u32,
    /// What it calls itself; any text, without control characters.
    pub name: String,
}

/// What a host tells after it was asked to end an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// What was done.
    pub deed: Deed,
    /// How many processes of its group, or that carry it in an environment that we may read, are still there.
    pub survivors: u64,
    /// The first of them.
    pub named: Vec<Survivor>,
    /// Whether the host has the tool to look at environments; else only the group is known.
    pub scanned: bool,
}

/// What to send to a host to end `attempt`, as whom it runs. Answered when it is done: within half a minute.
///
/// # Errors
/// A user whom nobody can become.
pub fn parcel(sudo: &Sudo, token: &Token, attempt: &Attempt) -> Result<Parcel, Undeliverable> {
    let Attempt { run, instance, number } = attempt;
    let call = format!("sshjob_cancel {attempt} {run} {instance} {number}\n");
    question(sudo, token, &[ALIVE, STOP, ROOTS, ENTER, CANCEL], &call)
}

/// The most bytes that an answer has.
pub const MAX_ANSWER: u64 = (Lines::MAX * (MAX_NAMED + 4)) as u64;

/// Reads the whole of what a host wrote to its standard output after the start marker.
///
/// # Errors
/// [`Unreadable`] where it is not exactly the answer about `attempt`: it may or may not have been ended.
pub fn read(token: &Token, attempt: &Attempt, answer: &[u8]) -> Result<Cancelled, Unreadable> {
    let mut lines = Lines::new(token, answer);
    lines.expect(attempt)?;
    let deed = match &*lines.next()? {
        "signalled" => Deed::Signalled,
        "over" => Deed::Over,
        "vanished" => Deed::Vanished,
        "unseen" => return Err(Unreadable::UNSEEN),
        _ => return Err(Unreadable("holds an unknown word")),
    };
    let mut named = Vec::new();
    loop {
        let line = lines.next()?;
        if let Some(survivor) = line.strip_prefix("survivor ") {
            let (pid, name) = survivor.split_once(' ').ok_or(Unreadable("lacks a word"))?;
            let pid = pid.parse().map_err(|_| Unreadable("holds a number that is none"))?;
            if named.len() == MAX_NAMED {
                return Err(Unreadable("names too many survivors"));
            }
            named.push(Survivor { pid, name: name.chars().filter(|c| !c.is_control()).take(64).collect() });
            continue;
        }
        let mut words = Words::new(&line);
        if words.word()? != "survivors" {
            return Err(Unreadable("holds an unknown word"));
        }
        let (survivors, scanned) = (words.number()?, words.word()? == "yes");
        words.end()?;
        lines.end()?;
        if (named.len() as u64) != survivors.min(MAX_NAMED as u64) {
            return Err(Unreadable("names other survivors than it counts"));
        }
        return Ok(Cancelled { deed, survivors, named, scanned });
    }
}
