//! Programs that outlive the channel: what is sent to start one, to see where it stands, and to end it.
//!
//! All three are a [`Parcel`] as an attached program is: the same command line, the same head read whole, the same start
//! marker; what follows the marker is our own answer, [`read_start`], [`collect`] or [`cancel`]. The channel is held by
//! nobody and ends at once.
//!
//! To start, the head launches (`launch.sh`) a *supervisor* in a session of its own, which itself receives the job
//! (environment and words, framed by the token as the head is) and the script, so that no end of the channel can come
//! between what has been received and what is done with it:
//!
//! 1. `prepare.sh`: looks for the attempt in both places; else makes a directory with all that will ever be written, its
//!    room reserved, its owner recorded: boot id, process id and start time;
//! 2. `claim.sh`: gives it the attempt's name by one `rename`. Either there is no attempt, or a complete one with an
//!    owner; of two that start it, one is told `started`, the other `attached`;
//! 3. `supervise.sh`: the program in a session and group of its own, recorded (`leader.sh`) before its first instruction;
//!    two pumps that store its output up to a limit and count the rest; a watch that beats and ends it at its time. The
//!    end is written by `rename` when all output is in its files;
//! 4. `sweep.sh`: removes what nobody collected.
//!
//! A directory holds `self` (token, supervisor's pid and start time, boot id, uptime at the start, limit, output limit,
//! OOM kills so far, hostname), `leader` (pid, start time), `beat` (uptime), `why` (`timed_out`, `cancelled`), `out`,
//! `err`, `out.rest`, `err.rest` (bytes beyond the limit), `script`, three pipes, and at last `status`. Environment,
//! arguments and secrets are in none of them. Times are seconds since boot: clocks that are set change nothing.
//!
//! The supervisor killed alone leaves a program that runs on, with its output stored and its limit watched, whose
//! status nobody learns: `lost: killed` once it has ended.

pub mod cancel;
pub mod collect;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::delivery::{
    ALIVE, Delivery, HOME_OF_ANOTHER, Parcel, Program, RECEIVE, REFUSE, ROOM, STOP, Token, Undeliverable, become_user,
    command_line, exports_len, push_exports, quote, without_comments,
};
use super::id::{InstanceId, RunId};
use super::job::Sudo;

const ROOTS: &str = include_str!("detached/roots.sh");
const OOMS: &str = include_str!("detached/ooms.sh");
const LAUNCH: &str = include_str!("detached/launch.sh");
const PREPARE: &str = include_str!("detached/prepare.sh");
const CLAIM: &str = include_str!("detached/claim.sh");
const SUPERVISE: &str = include_str!("detached/supervise.sh");
const LEADER: &str = include_str!("detached/leader.sh");
const SWEEP: &str = include_str!("detached/sweep.sh");

/// The longest time and the largest size that a shell is to calculate with: 31 years, 1 EiB.
const MAX_SECONDS: u64 = 1_000_000_000;
const MAX_BYTES: u64 = 1 << 60;

/// One attempt at one task: names its directory on the host, below `~/.sshjob` or `/var/tmp/sshjob-<uid>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// The instance: homes may be shared between hosts.
    pub instance: InstanceId,
    /// The number of the attempt, from 1.
    pub number: u32,
}

impl fmt::Display for Attempt {
    /// `<run-id>/<instance>/<attempt>`: letters, digits and `-_.:%@+` between the slashes, nothing to quote for a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.instance, self.number)
    }
}

/// What the supervisor holds a program to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long it may run; counted in whole seconds, rounded up.
    pub timeout: Duration,
    /// How many bytes of each output stream are stored.
    pub max_output: u64,
    /// How long the directory stays when nobody collects it; counted in whole minutes.
    pub keep: Duration,
}

/// What all hosts of a detached run are sent alike, checked once.
pub struct Detached {
    delivery: Delivery,
    facts: String,
    supervisor: Vec<u8>,
}

impl Detached {
    /// Prepares to start `program`, run as `sudo` says, on these terms.
    ///
    /// # Errors
    /// Why it would not run as meant on any host.
    pub fn new(program: Program<'_>, sudo: &Sudo, terms: &Terms) -> Result<Self, Undeliverable> {
        let delivery = Delivery::new(program, sudo, terms.timeout)?;
        let limit = terms.timeout.as_secs().saturating_add(u64::from(terms.timeout.subsec_nanos() > 0));
        let facts = format!(
            "sshjob_limit={} sshjob_max={} sshjob_keep={}",
            limit.min(MAX_SECONDS),
            terms.max_output.min(MAX_BYTES),
            (terms.keep.as_secs() / 60).clamp(1, MAX_SECONDS),
        );
        let is_script = !delivery.script.is_empty();
        let (room, receive) = if is_script { (ROOM, RECEIVE) } else { ("sshjob_bytes=0\n", "") };
        let before = [REFUSE, ALIVE, STOP, OOMS, ROOTS, room, PREPARE, receive, CLAIM];
        let mut text = before.map(without_comments).concat().into_bytes();
        text.extend_from_slice(b"sshjob_leader_text=");
        quote(&mut text, without_comments(LEADER).as_bytes());
        text.push(b'\n');
        text.extend_from_slice([SUPERVISE, SWEEP].map(without_comments).concat().as_bytes());
        let mut supervisor = b"sshjob_supervisor=".to_vec();
        quote(&mut supervisor, &text);
        supervisor.push(b'\n');
        Ok(Self { delivery, facts, supervisor })
    }

    /// Checks an environment before anything is sent anywhere.
    ///
    /// # Errors
    /// A variable that cannot be delivered; its value is not told.
    pub fn accepts(&self, env: &[(&str, &[u8])]) -> Result<(), Undeliverable> {
        self.delivery.accepts(env)
    }

    /// Addresses the start of `attempt` to its host, with the environment that the program sees there.
    ///
    /// Sent again, with whatever token, it never starts the attempt twice.
    ///
    /// # Errors
    /// As [`Self::accepts`].
    pub fn parcel(&self, token: &Token, attempt: &Attempt, env: &[(&str, &[u8])]) -> Result<Parcel, Undeliverable> {
        self.accepts(env)?;
        let Delivery { script, needs, words, become_user, .. } = &self.delivery;
        let mark = format!("#{token}");
        let job = 2 * mark.len() + "\n".len() + exports_len(env) + words.len();
        let mut head = format!("{mark}\nsshjob_token=$2 sshjob_dir=\n").into_bytes();
        head.extend_from_slice(without_comments(REFUSE).as_bytes());
        head.extend_from_slice(needs);
        if !become_user.is_empty() {
            head.extend_from_slice(HOME_OF_ANOTHER);
        }
        let facts = format!(
            "sshjob_facts='sshjob_token={token} sshjob_dir= sshjob_at={attempt} sshjob_length={job} {}",
            self.facts
        );
        head.extend_from_slice(facts.as_bytes());
        if !script.is_empty() {
            head.extend_from_slice(b" '\"sshjob_bytes=$sshjob_bytes sshjob_sha256=$sshjob_sha256\"'");
        }
        head.extend_from_slice(b"\n'\n");
        head.extend_from_slice(&self.supervisor);
        head.extend_from_slice(without_comments(LAUNCH).as_bytes());
        head.extend_from_slice(mark.as_bytes());
        let command = command_line(become_user, token, head.len());
        // Exactly as large as needed: a vector that grows leaves copies of secrets behind.
        let mut whole = Zeroizing::new(Vec::with_capacity(head.len() + job));
        whole.extend_from_slice(&head);
        whole.extend_from_slice(mark.as_bytes());
        whole.push(b'\n');
        push_exports(&mut whole, env);
        whole.extend_from_slice(words);
        whole.extend_from_slice(mark.as_bytes());
        Ok(Parcel { command, head: whole, script: script.clone() })
    }
}

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The attempt is claimed by this start and runs.
    Now,
    /// An earlier start had claimed it: where it stands is for the collector to tell.
    Before,
}

/// An answer that is not one of ours, or not all of it: nothing is known by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host's answer {0}")]
pub struct Unreadable(&'static str);

/// Reads the whole of what a host wrote to its standard output after the start marker of a [`Detached`].
///
/// # Errors
/// [`Unreadable`] where it is not exactly one answer: the attempt may or may not have been claimed. To start it again
/// tells.
pub fn read_start(token: &Token, answer: &[u8]) -> Result<Started, Unreadable> {
    match answer.strip_prefix(token.as_str().as_bytes()) {
        Some(b" started\n") => Ok(Started::Now),
        Some(b" attached\n") => Ok(Started::Before),
        _ if answer.is_empty() => Err(Unreadable("is missing")),
        _ => Err(Unreadable("to a start is neither `started` nor `attached`")),
    }
}

/// A parcel of nothing but a head: `texts` are fixed, `calls` are lines of words that need no quoting.
fn question(sudo: &Sudo, token: &Token, texts: &[&str], calls: &str) -> Result<Parcel, Undeliverable> {
    let texts: String = texts.iter().map(|text| without_comments(text)).collect();
    let head = format!("#{token}\nsshjob_token=$2\n{texts}{calls}echo \"$sshjob_token end\"\nexit\n#{token}");
    let command = command_line(&become_user(sudo)?, token, head.len());
    Ok(Parcel { command, head: Zeroizing::new(head.into_bytes()), script: [].into() })
}

/// The rest of an answer, taken line by line. Every line of ours begins with the token.
struct Lines<'a> {
    token: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// A line is short: two names, a few numbers.
    const MAX: usize = 1024;

    fn new(token: &'a Token, rest: &'a [u8]) -> Self {
        Self { token: token.as_str().as_bytes(), rest }
    }

    /// The next line, without the token.
    fn next(&mut self) -> Result<Cow<'a, str>, Unreadable> {
        let shown = self.rest.get(..Self::MAX).unwrap_or(self.rest);
        let end = shown.iter().position(|byte| *byte == b'\n').ok_or(Unreadable("is cut"))?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        let line = line.strip_prefix(self.token).and_then(|line| line.strip_prefix(b" "));
        // Processes may call themselves anything.
        line.map(String::from_utf8_lossy).ok_or(Unreadable("holds a line that is not ours"))
    }

    /// The next `length` bytes and the line end after them.
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Unreadable("is cut"))?;
        self.rest = rest.strip_prefix(b"\n").ok_or(Unreadable("has other lengths than it says"))?;
        Ok(bytes)
    }

    /// The line that says which attempt the next ones are about.
    fn expect(&mut self, attempt: &Attempt) -> Result<(), Unreadable> {
        if self.next()? == format!("look {attempt}") { Ok(()) } else { Err(Unreadable("is about another attempt")) }
    }

    /// The last line, after which there is nothing.
    fn end(mut self) -> Result<(), Unreadable> {
        if self.next()? != "end" {
            return Err(Unreadable("goes on after its end"));
        }
        if self.rest.is_empty() { Ok(()) } else { Err(Unreadable("goes on after its end")) }
    }
}

/// The words of a line, each taken once.
struct Words<'a>(std::str::Split<'a, char>);

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        Self(line.split(' '))
    }

    fn word(&mut self) -> Result<&'a str, Unreadable> {
        self.0.next().ok_or(Unreadable("lacks a word"))
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        number(self.word()?)
    }

    /// A number, or `-` where there is none.
    fn maybe(&mut self) -> Result<Option<u64>, Unreadable> {
        match self.word()? {
            "-" => Ok(None),
            word => number(word).map(Some),
        }
    }

    /// Seconds since boot with two decimals, as /proc/uptime has them, or `-`.
    fn uptime(&mut self) -> Result<Option<Duration>, Unreadable> {
        let word = self.word()?;
        if word == "-" {
            return Ok(None);
        }
        let wrong = Unreadable("holds a time that is none");
        let (seconds, hundredths) = word.split_once('.').filter(|(_, rest)| rest.len() == 2).ok_or(wrong)?;
        let (seconds, hundredths) = (number(seconds)?, number(hundredths)?);
        Ok(Some(Duration::from_secs(seconds.min(u64::from(u32::MAX))) + Duration::from_millis(hundredths * 10)))
    }

    fn end(mut self) -> Result<(), Unreadable> {
        if self.0.next().is_none() { Ok(()) } else { Err(Unreadable("has a word too many")) }
    }
}

/// Digits and nothing else.
fn number(word: &str) -> Result<u64, Unreadable> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|_| digits).ok_or(Unreadable("holds a number that is none"))
}
