//! A script: its bytes, frozen once per run, and what executes it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest script that is delivered: what a host can buffer without harm.
pub const MAX_SCRIPT_BYTES: usize = 16 * 1024 * 1024;

/// The frozen script of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRef {
    /// SHA-256 of the bytes, in hexadecimal: the blob's name.
    pub sha256: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// Where it came from, for people.
    pub origin: String,
}

/// What executes a script: what the kernel would read from its `#!` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// The program.
    pub program: String,
    /// The one argument that the line may hold.
    pub argument: Option<String>,
}

/// Why a script was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidScript {
    /// Nothing to run.
    #[error("the script is empty")]
    Empty,
    /// Larger than [`MAX_SCRIPT_BYTES`].
    #[error("the script has {0} bytes; at most {MAX_SCRIPT_BYTES} are delivered")]
    TooLong(usize),
    /// Lines end as on Windows.
    #[error(
        "line 1 of the script ends in CR LF; Linux would look for an interpreter or command named with a trailing CR"
    )]
    CarriageReturn,
    /// The interpreter's name is not text.
    #[error("the `#!` line is not a path to a program")]
    Interpreter,
}

/// SHA-256 of `bytes` in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads what executes `script`; without a `#!` line that is `/bin/sh`.
///
/// # Errors
/// [`InvalidScript`] where the script could not run as its author meant it.
pub fn interpreter(script: &[u8]) -> Result<Interpreter, InvalidScript> {
    if script.is_empty() {
        return Err(InvalidScript::Empty);
    }
    if script.len() > MAX_SCRIPT_BYTES {
        return Err(InvalidScript::TooLong(script.len()));
    }
    let line = script.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Err(InvalidScript::CarriageReturn);
    }
    let Some(line) = line.strip_prefix(b"#!") else {
        return Ok(Interpreter { program: "/bin/sh".to_owned(), argument: None });
    };
    let line = std::str::from_utf8(line).map_err(|_| InvalidScript::Interpreter)?.trim_matches([' ', '\t']);
    let (program, argument) = match line.split_once([' ', '\t']) {
        Some((program, rest)) => (program, Some(rest.trim_matches([' ', '\t']))),
        None => (line, None),
    };
    if !program.starts_with('/') || line.contains('\0') {
        return Err(InvalidScript::Interpreter);
    }
    Ok(Interpreter { program: program.to_owned(), argument: argument.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(script: &str) -> Result<(String, Option<String>), InvalidScript> {
        interpreter(script.as_bytes()).map(|i| (i.program, i.argument))
    }

    #[test]
    fn interpreter_is_read_as_the_kernel_reads_it() {
        assert_eq!(read("echo hi"), Ok(("/bin/sh".into(), None)));
        assert_eq!(read("#!/bin/bash\nx"), Ok(("/bin/bash".into(), None)));
        assert_eq!(read("#! /usr/bin/env  python3 -u \nx"), Ok(("/usr/bin/env".into(), Some("python3 -u".into()))));
        assert_eq!(read("#!/bin/sh\r\nx"), Err(InvalidScript::CarriageReturn));
        assert_eq!(read("echo a\r\necho b\r\n"), Err(InvalidScript::CarriageReturn));
        assert_eq!(read(""), Err(InvalidScript::Empty));
        assert_eq!(read("#!python3\n"), Err(InvalidScript::Interpreter));
    }

    #[test]
    fn sha256_is_the_published_one() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
