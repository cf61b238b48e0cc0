//! What is sent to a host: one command line, and by standard input everything else.
//!
//! The command line, `command.sh` and texts of ours, is the same for everything that is run, and survives every login
//! shell: it holds no single quote, backslash, newline or `!` but before a blank, and its words are short. It reads the *head* into memory, a
//! text for `/bin/sh` that begins and ends with the token and has the announced length; of a head that was cut or robbed of
//! bytes nothing runs. A short head is one line, which the shell reads by itself. What the head does, put together here:
//!
//! 1. `sshjob_take` (scripts only; `room.sh`, `place.sh`, `receive.sh`): makes a private directory where there is room,
//!    receives the script into a file, checks its SHA-256;
//! 2. `sshjob_watch` (`watch.sh`): starts the watchdog (`watchdog.sh`), whose standard input is the channel's: the
//!    *lifeline*. When it ends, or the limit passes, what still runs is ended; then the directory is removed;
//! 3. exports the environment; `sshjob_start` (`start.sh`) writes the start marker to both outputs, and becomes the program
//!    by `exec`: the process that the SSH server started, so that the server reports the program's own exit status or
//!    signal.
//!
//! To become another user, the command line first writes the token and `sudo`, so that what sudo itself says is known as
//! such, and then runs all of this by `sudo -n`: in its place or as its child, its input passing through sudo or not, as
//! the host's sudoers has it. The environment comes with the head, past what sudo takes away; so do the texts, but for those
//! that launch a detached start, for sudo writes command lines to the log. Without a terminal sudo makes none, whatever `use_pty` says: so do versions 1.9.5 to
//! 1.9.18.
//!
//! Standard input must stay open for as long as the program may run; the program itself reads from `/dev/null`.
//!
//! What it costs the host, where starting a program takes 1 ms of CPU time and a fork 0.2 ms. Command: 5 forks and 3
//! programs (`setsid`, `sh`, `sleep`), and `dd` where the head is long. Script: `mkdir`, `dd`, `sha256sum`, and at the end
//! `rm`, more. Environment and secrets are never in a file; neither they nor the arguments are in a
//! process list before the program itself is.

mod line;
mod quote;
pub mod reply;
pub mod sudo;

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub(super) use self::line::{Reader, command_line, one_line, shell_line, without_comments};
use self::quote::push_word;
pub(super) use self::quote::{exports_len, push_exports, quote, quoted_len};
use super::job::Sudo;
use super::script::{InvalidScript, interpreter, sha256_hex};

/// The longest argument or variable: Linux's `MAX_ARG_STRLEN` less the final zero byte.
pub const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// The most bytes of arguments and environment together: half of what Linux takes with its usual stack limit.
pub const MAX_ARGUMENTS: usize = 1024 * 1024;

/// How much later than `timeout` the host ends the program: our own timer, which can say why, comes first.
pub const MARGIN: Duration = Duration::from_secs(5);

pub(super) const REFUSE: &str = include_str!("delivery/refuse.sh");
pub(super) const ALIVE: &str = include_str!("delivery/alive.sh");
pub(super) const STOP: &str = include_str!("delivery/stop.sh");
pub(super) const ROOM: &str = include_str!("delivery/room.sh");
const PLACE: &str = include_str!("delivery/place.sh");
pub(super) const RECEIVE: &str = include_str!("delivery/receive.sh");
const WATCH: &str = include_str!("delivery/watch.sh");
const START: &str = include_str!("delivery/start.sh");
const WATCHDOG: &str = include_str!("delivery/watchdog.sh");

/// The longest head that the shell reads by itself: a byte costs it 0.3 µs, `dd` 1.3 ms.
const MAX_LINE: usize = 2048;

/// The login user's home is often closed to others, and nothing runs well where it cannot look around.
pub(super) const HOME_OF_ANOTHER: &[u8] = b"cd . 2>/dev/null || cd 2>/dev/null || cd /;";

/// Names one delivery; what the host writes on our behalf starts with it. 128 random bits in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token made of these random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        let mut text = String::with_capacity(32);
        for byte in random {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why something cannot be delivered to any host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undeliverable {
    /// The script itself.
    #[error(transparent)]
    Script(#[from] InvalidScript),
    /// Nothing to run.
    #[error("the command is empty")]
    EmptyCommand,
    /// A shell's `exec` would take it for an option.
    #[error("the command `{0}` starts with `-`")]
    Dash(String),
    /// A zero byte ends a text for Linux.
    #[error("{0} holds a zero byte, which no argument or variable can hold")]
    ZeroByte(String),
    /// Larger than [`MAX_ARGUMENT`].
    #[error("{what} has {bytes} bytes; Linux takes at most {MAX_ARGUMENT}")]
    TooLong {
        /// Which argument or variable.
        what: String,
        /// Its size; a variable's with its name.
        bytes: usize,
    },
    /// More than [`MAX_ARGUMENTS`].
    #[error("arguments and environment have {0} bytes together; at most {MAX_ARGUMENTS} are delivered")]
    TooMuch(usize),
    /// No shell can export it.
    #[error("`{0}` is not a variable's name: letters, digits and `_`, not starting with a digit or with `sshjob_`")]
    Name(String),
    /// It would need quoting on the command line.
    #[error("`{0}` is not a user to become: letters, digits and `-_.@+`, at most 64, not starting with `-`")]
    User(String),
    /// The system's own manager takes orders from root only.
    #[error("a unit of systemd's needs `sudo: true`")]
    Unit,
}

/// What is run on every host of a run.
#[derive(Debug, Clone, Copy)]
pub enum Program<'a> {
    /// A script, by its `#!` line, with arguments.
    Script {
        /// Its bytes.
        bytes: &'a Arc<[u8]>,
        /// Its arguments.
        args: &'a [Vec<u8>],
    },
    /// A program with arguments, as they are.
    Command(&'a [Vec<u8>]),
}

/// What all hosts of a run are sent alike, checked once.
pub struct Delivery {
    pub(super) script: Arc<[u8]>,
    limit: u64,
    /// The texts of ours that the head calls.
    texts: String,
    /// What must be there before anything is made; for a script, also what it must turn out to be.
    pub(super) needs: Vec<u8>,
    /// What must be there once the environment is.
    pub(super) seeks: Vec<u8>,
    /// What to run, as `"$@"`.
    pub(super) words: Vec<u8>,
    pub(super) become_user: String,
    size: usize,
}

/// What one host is sent: `command` is executed; then `head` and `script` follow by standard input.
pub struct Parcel {
    /// The command line of the SSH exec request.
    pub command: String,
    /// The first part of standard input. Holds secrets.
    pub head: Zeroizing<Vec<u8>>,
    /// The second part; empty for a command.
    pub script: Arc<[u8]>,
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel").field("command", &self.command).finish_non_exhaustive()
    }
}

impl Delivery {
    /// Prepares a delivery of `program`, run as `sudo` says, ended by the host [`MARGIN`] after `timeout`.
    ///
    /// # Errors
    /// Why it would not run as meant on any host.
    pub fn new(program: Program<'_>, sudo: &Sudo, timeout: Duration) -> Result<Self, Undeliverable> {
        let limit = timeout.saturating_add(MARGIN).as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0));
        let (mut needs, mut seeks, mut words) = (Vec::new(), Vec::new(), Vec::new());
        let (args, script) = match program {
            Program::Script { bytes, args } => {
                let interpreter = interpreter(bytes)?;
                let path = interpreter.program.as_bytes();
                check(path, || "the interpreter".to_owned())?;
                require(&mut needs, "[ -f \"$1\" ] && [ -x \"$1\" ]", path);
                if let Some(argument) = sought_by_env(&interpreter.program, interpreter.argument.as_deref()) {
                    require(&mut seeks, "command -v \"$1\" >/dev/null", argument.as_bytes());
                }
                let bytes_and_hash = format!("sshjob_bytes={} sshjob_sha256={};", bytes.len(), sha256_hex(bytes));
                needs.extend_from_slice(bytes_and_hash.as_bytes());
                words.extend_from_slice(b"set --");
                push_word(&mut words, path);
                if let Some(argument) = &interpreter.argument {
                    check(argument.as_bytes(), || "the interpreter's argument".to_owned())?;
                    push_word(&mut words, argument.as_bytes());
                }
                words.extend_from_slice(b" \"$sshjob_dir/script\"");
                (args, Arc::clone(bytes))
            }
            Program::Command(line) => {
                let (program, args) = line.split_first().ok_or(Undeliverable::EmptyCommand)?;
                if program.is_empty() {
                    return Err(Undeliverable::EmptyCommand);
                }
                if program.starts_with(b"-") {
                    return Err(Undeliverable::Dash(shown(program)));
                }
                check(program, || "the command".to_owned())?;
                require(&mut seeks, "command -v \"$1\" >/dev/null", program);
                words.extend_from_slice(b"set --");
                push_word(&mut words, program);
                (args, Arc::from([]))
            }
        };
        for (index, arg) in args.iter().enumerate() {
            check(arg, || format!("argument {}", index + 1))?;
            push_word(&mut words, arg);
        }
        words.push(b';');
        let become_user = become_user(sudo)?;
        let size = args.iter().map(Vec::len).sum();
        if size > MAX_ARGUMENTS {
            return Err(Undeliverable::TooMuch(size));
        }
        Ok(Self { script, limit, texts: texts(), needs, seeks, words, become_user, size })
    }

    /// Checks an environment before anything is sent anywhere.
    ///
    /// # Errors
    /// A variable that cannot be delivered; its value is not told.
    pub fn accepts(&self, env: &[(&str, &[u8])]) -> Result<(), Undeliverable> {
        let mut size = self.size;
        for (name, value) in env {
            if !is_variable(name) {
                return Err(Undeliverable::Name(shown(name.as_bytes())));
            }
            let what = || format!("variable `{name}`");
            check(value, what)?;
            let bytes = name.len() + 1 + value.len();
            if bytes > MAX_ARGUMENT {
                return Err(Undeliverable::TooLong { what: what(), bytes });
            }
            size += bytes;
        }
        if size > MAX_ARGUMENTS {
            return Err(Undeliverable::TooMuch(size));
        }
        Ok(())
    }

    /// Addresses the delivery to one host, with the environment that the program sees there.
    ///
    /// # Errors
    /// As [`Self::accepts`].
    pub fn parcel(&self, token: &Token, env: &[(&str, &[u8])]) -> Result<Parcel, Undeliverable> {
        self.accepts(env)?;
        let (mark, becomes) = (format!(": {token}"), !self.become_user.is_empty());
        let mut before = format!("{mark};sshjob_dir= sshjob_limit={};", self.limit).into_bytes();
        let texts = if becomes { "" } else { &self.texts };
        if becomes {
            before.extend_from_slice(b"sshjob_lib=");
            quote(&mut before, self.texts.as_bytes());
            before.extend_from_slice(b";eval \"$sshjob_lib\";");
        }
        before.extend_from_slice(&self.needs);
        before.extend_from_slice(if self.script.is_empty() { b"" } else { b"sshjob_take;" });
        before.extend_from_slice(b"sshjob_watch;");
        before.extend_from_slice(if becomes { HOME_OF_ANOTHER } else { b"" });
        let after = [&self.seeks[..], &self.words, b"sshjob_start \"$@\";", mark.as_bytes()].concat();
        // Exactly as large as needed, and a line end: a vector that grows leaves copies of secrets behind.
        let mut head = Zeroizing::new(Vec::with_capacity(before.len() + exports_len(env) + after.len() + 1));
        head.extend_from_slice(&before);
        push_exports(&mut head, env);
        head.extend_from_slice(&after);
        let is_line = head.len() < MAX_LINE && head.iter().all(|byte| (b' '..=b'~').contains(byte));
        if is_line {
            head.push(b'\n');
        }
        let reader = if is_line { Reader::Shell } else { Reader::Dd };
        let command = command_line("sshjob", &self.become_user, token, reader, head.len(), texts);
        Ok(Parcel { command, head, script: Arc::clone(&self.script) })
    }
}

/// The texts of ours that a head calls, as one line.
fn texts() -> String {
    let take = [ROOM, PLACE, RECEIVE].map(one_line).concat();
    let others = [REFUSE, ALIVE, STOP, WATCHDOG, WATCH, START].map(one_line).concat();
    format!("{others}sshjob_take() {{ {take}}};")
}

/// What the command line begins with to become whom `sudo` says.
pub(super) fn become_user(sudo: &Sudo) -> Result<String, Undeliverable> {
    match sudo {
        Sudo::No => Ok(String::new()),
        Sudo::Root => Ok("sudo -n -- ".to_owned()),
        Sudo::User(user) if is_user_to_become(user) => Ok(format!("sudo -n -u {user} -- ")),
        Sudo::User(user) => Err(Undeliverable::User(shown(user.as_bytes()))),
    }
}

/// Adds a refusal, naming `program`, unless `test` says that `$1` is there.
fn require(head: &mut Vec<u8>, test: &str, program: &[u8]) {
    head.extend_from_slice(b"set --");
    push_word(head, program);
    head.extend_from_slice(format!(";{test} || sshjob_refuse program \"$1\";").as_bytes());
}

/// The program that `/usr/bin/env` is to look for, where its argument is nothing but a name.
fn sought_by_env<'a>(program: &str, argument: Option<&'a str>) -> Option<&'a str> {
    let plain = |name: &&str| !name.starts_with('-') && !name.contains(|c: char| c.is_whitespace() || c == '=');
    argument.filter(|_| program.ends_with("/env")).filter(plain)
}

fn check(bytes: &[u8], what: impl Fn() -> String) -> Result<(), Undeliverable> {
    if bytes.contains(&0) {
        return Err(Undeliverable::ZeroByte(what()));
    }
    if bytes.len() > MAX_ARGUMENT {
        return Err(Undeliverable::TooLong { what: what(), bytes: bytes.len() });
    }
    Ok(())
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && !name.starts_with("sshjob_")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a user of this name can be asked of sudo: the name needs no quoting in any login shell.
pub fn is_user_to_become(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte))
}

/// A text for messages: short, and nothing in it that a terminal would obey.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::line::MAX_WORD;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn refusal(line: &[Vec<u8>], env: &[(&str, &[u8])]) -> String {
        let delivery = Delivery::new(Program::Command(line), &Sudo::No, SECOND);
        delivery.and_then(|delivery| delivery.parcel(&Token::new([0; 16]), env)).unwrap_err().to_string()
    }

    #[test]
    fn command_line_survives_every_login_shell() {
        for sudo in [Sudo::No, Sudo::Root, Sudo::User("app-1.x_y@z+".into())] {
            let delivery = Delivery::new(Program::Command(&words(&["id", "it's"])), &sudo, SECOND).unwrap();
            let line = delivery.parcel(&Token::new([0xab; 16]), &[("A", b"b")]).unwrap().command;
            assert!(!line.contains(['\\', '\n', '\t']) && line.is_ascii(), "{line}");
            // C shells look in their history for what follows it, but for a blank.
            assert_eq!(line.matches('!').count(), line.matches("! ").count(), "{line}");
            // Every other part is in quotes.
            let parts: Vec<&str> = line.split('\'').collect();
            assert!(parts.len() % 2 == 1 && parts.iter().all(|part| part.len() <= MAX_WORD), "{line}");
            // What sudo runs is in its log.
            assert_eq!(parts.len() > 3, sudo == Sudo::No, "{line}");
            let [head, _, arguments, ..] = &parts[..] else { panic!("{line}") };
            assert!(arguments.starts_with(" sshjob "), "{line}");
            assert!(arguments.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' '), "{line}");
            let become_user = match sudo {
                Sudo::No => "exec /bin/sh -c ".to_owned(),
                Sudo::Root => format!("echo {} sudo; exec sudo -n -- /bin/sh -c ", "ab".repeat(16)),
                Sudo::User(_) => format!("echo {} sudo; exec sudo -n -u app-1.x_y@z+ -- /bin/sh -c ", "ab".repeat(16)),
            };
            assert_eq!(*head, become_user, "{line}");
        }
    }

    #[test]
    fn command_line_is_the_same_for_everything() {
        let line = |delivery: Delivery| {
            let parcel = delivery.parcel(&Token::new([1; 16]), &[]).unwrap();
            parcel.command.replace(&format!(" {} ", parcel.head.len()), " N ")
        };
        let script: Arc<[u8]> = Arc::from(*b"#!/bin/bash\necho");
        let program = Program::Script { bytes: &script, args: &words(&["a", "b"]) };
        let of_script = line(Delivery::new(program, &Sudo::No, SECOND).unwrap());
        let of_command = line(Delivery::new(Program::Command(&words(&["x"])), &Sudo::No, SECOND * 9).unwrap());
        assert_eq!(of_script, of_command);
    }

    #[test]
    fn what_no_host_could_run_is_refused() {
        let long = "x".repeat(MAX_ARGUMENT + 1);
        let much = vec![vec![b'x'; 100_000]; 11];
        let echo = words(&["echo"]);
        let said = [
            refusal(&[], &[]),
            refusal(&words(&[""]), &[]),
            refusal(&words(&["-x"]), &[]),
            refusal(&words(&["a\0b"]), &[]),
            refusal(&words(&["echo", "fine", "a\0b"]), &[]),
            refusal(&words(&["echo", &long]), &[]),
            refusal(&[&echo[..], &much[..]].concat(), &[]),
            refusal(&echo, &[("A B", b"")]),
            refusal(&echo, &[("1A", b"")]),
            refusal(&echo, &[("sshjob_dir", b"")]),
            refusal(&echo, &[("SECRET", b"hidden\0")]),
            refusal(&echo, &[("SECRET", &long.as_bytes()[..MAX_ARGUMENT - 6])]),
            refusal(&[&echo[..], &much[..10]].concat(), &[("A", &much[0])]),
        ];
        insta::assert_snapshot!(said.join("\n"));
        let user = |name: &str| Delivery::new(Program::Command(&echo), &Sudo::User(name.to_owned()), SECOND).err();
        for name in ["", "-u", "a b", "a'b", "$x", &"u".repeat(65)] {
            assert_eq!(user(name), Some(Undeliverable::User(name.to_owned())));
        }
    }

    #[test]
    fn limit_is_whole_seconds_and_later_than_the_timeout() {
        let limit = |timeout| {
            let delivery = Delivery::new(Program::Command(&words(&["x"])), &Sudo::No, timeout).unwrap();
            delivery.limit.to_string()
        };
        assert_eq!(limit(Duration::from_mins(5)), "305");
        assert_eq!(limit(Duration::from_millis(1)), "6");
        assert_eq!(limit(Duration::MAX), u64::MAX.to_string());
    }

    #[test]
    fn parcel_shows_no_secret() {
        let delivery = Delivery::new(Program::Command(&words(&["x"])), &Sudo::No, SECOND).unwrap();
        let parcel = delivery.parcel(&Token::new([1; 16]), &[("PASS", b"hidden")]).unwrap();
        assert!(parcel.head.windows(6).any(|window| window == b"hidden"));
        assert!(!format!("{parcel:?}{:?}", parcel.command).contains("hidden"));
    }

    proptest! {
        #[test]
        fn head_has_exactly_the_length_that_was_reserved(
            values in proptest::collection::vec(("[A-Z_]{1,9}", proptest::collection::vec(1..=255_u8, 0..40)), 0..5),
        ) {
            let delivery = Delivery::new(Program::Command(&words(&["x"])), &Sudo::No, SECOND).unwrap();
            let env: Vec<(&str, &[u8])> = values.iter().map(|(name, value)| (&**name, &**value)).collect();
            let parcel = delivery.parcel(&Token::new([1; 16]), &env).unwrap();
            prop_assert!((0..=1).contains(&(parcel.head.capacity() - parcel.head.len())));
            let announced = format!(" {} {} ", if parcel.head.ends_with(b"\n") { "read" } else { "dd" }, parcel.head.len());
            prop_assert!(parcel.command.contains(&announced));
        }
    }
}
