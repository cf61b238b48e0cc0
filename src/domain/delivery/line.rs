//! The command line, and the texts of ours as they go to a host.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Token;

const COMMAND: &str = include_str!("command.sh");

/// The longest word of a command line: old C shells take 1024 characters.
pub(super) const MAX_WORD: usize = 1000;

/// Who reads a head on the host.
#[derive(Clone, Copy)]
pub(in super::super) enum Reader {
    /// The shell by itself: one line of printable ASCII, with its end.
    Shell,
    /// A program, which takes any bytes.
    Dd,
}

/// The command line that, become whom it is to be, reads a head of `length` bytes, evaluates `texts` and then the head. Its
/// process calls itself `name`, which needs no quoting.
pub(in super::super) fn command_line(
    name: &str,
    become_user: &str,
    token: &Token,
    reader: Reader,
    length: usize,
    texts: &str,
) -> String {
    let reader = match reader {
        Reader::Shell => "read",
        Reader::Dd => "dd",
    };
    let mut line = shell_line(COMMAND, name, become_user, token, reader, length);
    let mut rest = texts.trim_end();
    while !rest.is_empty() {
        // The shell joins them again, with a blank.
        let end = rest.get(..MAX_WORD).and_then(|longest| longest.rfind(' '));
        let (word, others) = end.and_then(|end| rest.split_at_checked(end)).unwrap_or((rest, ""));
        line.extend([" '", word, "'"]);
        rest = others.trim_start();
    }
    line
}

/// The command line that, become whom it is to be, runs `program`, a text with these arguments: `how`, words that are
/// quoted where they must be, `length`, that of the head, and `token`. Its process calls itself `name`, which needs no
/// quoting.
pub(in super::super) fn shell_line(
    program: &str,
    name: &str,
    become_user: &str,
    token: &Token,
    how: &str,
    length: usize,
) -> String {
    let program = one_line(program);
    // Whoever ends after this word and before ours is sudo, whatever language it speaks.
    let announced = if become_user.is_empty() { String::new() } else { format!("echo {token} sudo; ") };
    format!("{announced}exec {become_user}/bin/sh -c '{}' {name} {how} {length} {token}", program.trim_end())
}

/// Comments are for readers of the source; a host's process list does without. What is left of each text, of which this
/// program has a dozen, is found out once.
pub(in super::super) fn without_comments(script: &'static str) -> &'static str {
    static BARE: Mutex<BTreeMap<&str, &str>> = Mutex::new(BTreeMap::new());
    let mut bare = BARE.lock().unwrap_or_else(PoisonError::into_inner);
    bare.entry(script).or_insert_with(|| {
        let lines = script.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.flat_map(|line| [line, "\n"]).collect::<String>().leak()
    })
}

/// The same in one line: statements end with a semicolon there, or go on in the next line.
pub(in super::super) fn one_line(script: &str) -> String {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(|line| [line.trim_end_matches('\\').trim_end(), " "]).collect()
}
