//! Programs that outlive the channel: what is sent to start one, to see where it stands, and to end it.
//!
//! All three are a [`Parcel`] as an attached program is: a command line, a head read whole, the same start marker; what
//! follows the marker is our own answer, [`read_start`], [`collect`] or [`cancel`]. The channel is held by nobody and ends
//! at once.
//!
//! To start, the command line launches (`launch.sh`; `unit.sh`, in a head, by systemd) a *supervisor* in a session of its
//! own: the one that the server has made for this command, if it has, or a new one. It reads its own text (`load.sh`),
//! answers by itself, and ends the shell that waits for it; how that ended says nothing. The job (environment and words,
//! framed by the token as the head is) and the script are variables in that text where they fit into them; what does not,
//! it receives by itself, so that no end of the channel can come between what has been received and what is done with it:
//!
//! 1. `prepare.sh`: looks for the attempt in both places; else makes a directory with all that will ever be written, its
//!    room reserved, its supervisor recorded: boot id, process id and start time. It lies in the attempt's and has the name
//!    of the token: whoever else starts the same has another;
//! 2. `claim.sh`: makes the file `owner` in the attempt's, which only one can, and writes the token into it. Either there
//!    is no attempt, or a complete one; of two that start it, one is told `started`, the other `attached`. Who is killed
//!    between the two calls of the system leaves an attempt that is nobody's: it never runs, and has vanished;
//! 3. `supervise.sh`: the program in a session and group of its own, recorded before its first instruction;
//!    two pumps that store its output up to a limit and count the rest; a watch that beats and ends it at its time. The
//!    end is written by `rename` when all output is in its files;
//! 4. `sweep.sh`: removes what nobody collected, of this attempt and of others, in both places, once a minute at most.
//!
//! The owner's directory holds `self` (token, supervisor's pid and start time, boot id, uptime at the start, limit, output
//! limit, minutes to keep it, hostname), `leader` (pid, start time), `pumps` (the same of both, from the second beat on),
//! `beat` (uptime, OOM kills on the host before), `why` (`timed_out` or `cancelled`, and when), `out`, `err`, `out.rest`,
//! `err.rest` (bytes beyond the limit), `script`, at last `status`, and three pipes where the shell has none to give to
//! itself. Environment, arguments and secrets are in none of them. Times are seconds since boot: clocks that are set change
//! nothing.
//!
//! What it costs the host: the programs that are started, 1 ms of CPU time each where a fork takes 0.2 ms. A command, up
//! to the answer: `mkdir`; where the shell reads files byte by byte or to their end, as bash does, also `dd`; where the
//! server makes no session, as Dropbear, also `setsid` and `sh`; where the shell's own texts come by files also `mkfifo`;
//! a script of more than 64 KiB, or not in ASCII, `dd` twice and `sha256sum`; the first of a user another `mkdir`. Then,
//! after the channel has ended, two `dd` (a third for much output: 16 KiB with the usual limit), a `sleep` every ten seconds
//! (at first every two), `setsid` and the job's own, `mv`; where there is something to sweep, `find` and `ls`. A shell reads
//! byte by byte: a process's state takes as long as a fork, and so does what `##` takes off it, for which dash tries every
//! length.
//!
//! A shell tells a child's signal from an exit status above 128 by what it says of it; zsh, and of SIGINT and SIGPIPE any
//! but ksh93, says nothing: such an end is told as the exit status 128 + signal.
//!
//! The supervisor killed alone leaves a program that runs on, with its output stored and its limit watched, whose
//! status nobody learns: `lost: killed` once it has ended.

mod answer;
pub mod cancel;
pub mod collect;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::answer::Unreadable;
use self::answer::{Lines, Words};
use super::delivery::{
    ALIVE, Delivery, HOME_OF_ANOTHER, Parcel, Program, RECEIVE, REFUSE, ROOM, Reader, STOP, Token, Undeliverable,
    become_user, command_line, exports_len, one_line, push_exports, quote, quoted_len, shell_line, without_comments,
};
use super::id::{InstanceId, RunId};
use super::job::Sudo;

const ROOTS: &str = include_str!("detached/roots.sh");
const ENTER: &str = include_str!("detached/enter.sh");
const OOMS: &str = include_str!("detached/ooms.sh");
const HEAR: &str = include_str!("detached/hear.sh");
const LAUNCH: &str = include_str!("detached/launch.sh");
const LOAD: &str = include_str!("detached/load.sh");
const UNIT: &str = include_str!("detached/unit.sh");
const PREPARE: &str = include_str!("detached/prepare.sh");
const CLAIM: &str = include_str!("detached/claim.sh");
const STORE: &str = include_str!("detached/store.sh");
/// Of a script that is still to be received, the room is made first.
const STORE_LATER: &str = "sshjob_store() { sshjob_fits; }\n";
const SUPERVISE: &str = include_str!("detached/supervise.sh");
const SWEEP: &str = include_str!("detached/sweep.sh");

/// The longest time and the largest size that a shell is to calculate with: 31 years, 1 EiB.
const MAX_SECONDS: u64 = 1_000_000_000;
const MAX_BYTES: u64 = 1 << 60;

/// The same of a shell that calculates with 32 bits, as mksh does, and counts hundredths of a second: 248 days, 2 GiB.
const MAX_SECONDS_OF_32_BITS: u64 = 21_474_836;
const MAX_BYTES_OF_32_BITS: u64 = i32::MAX as u64;

/// Refuses a program that is not there, by a function of the supervisor's.
const SEEK: &[u8] = b"sshjob_seek;";

/// Refuses what such a shell cannot watch.
const NEEDS_64_BITS: &[u8] = b"[ $((2147483647 + 1)) -gt 0 ] || sshjob_refuse bits\n";

/// The largest job, and the largest script, that the supervisor is given as a variable: programs less to start than what
/// receives a larger one, and little enough for any shell.
const MAX_IN_HEAD: usize = 64 * 1024;

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
    /// How long it may run; counted in whole seconds, rounded up, and watched every second at the end.
    pub timeout: Duration,
    /// How many bytes of each output stream are stored.
    pub max_output: u64,
    /// How long the directory stays when nobody collects it, unless there are very many; counted in whole minutes.
    pub keep: Duration,
    /// Whether the supervisor is a transient unit of systemd's; for those that become root only.
    pub unit: bool,
}

/// What all hosts of a detached run are sent alike, checked once.
pub struct Detached {
    delivery: Delivery,
    facts: String,
    supervisor: Vec<u8>,
    unit: bool,
    script_in_head: bool,
}

impl Detached {
    /// Prepares to start `program`, run as `sudo` says, on these terms.
    ///
    /// # Errors
    /// Why it would not run as meant on any host.
    pub fn new(program: Program<'_>, sudo: &Sudo, terms: &Terms) -> Result<Self, Undeliverable> {
        if terms.unit && *sudo != Sudo::Root {
            return Err(Undeliverable::Unit);
        }
        let mut delivery = Delivery::new(program, sudo, terms.timeout)?;
        let limit = terms.timeout.as_secs().saturating_add(u64::from(terms.timeout.subsec_nanos() > 0));
        if limit > MAX_SECONDS_OF_32_BITS || terms.max_output > MAX_BYTES_OF_32_BITS {
            delivery.needs.extend_from_slice(NEEDS_64_BITS);
        }
        let facts = format!(
            "sshjob_limit={} sshjob_max={} sshjob_keep={}",
            limit.min(MAX_SECONDS),
            terms.max_output.min(MAX_BYTES),
            (terms.keep.as_secs() / 60).clamp(1, MAX_SECONDS),
        );
        let script_in_head = !terms.unit && fits_into_a_variable(&delivery.script);
        let (store, receive) = match &delivery.script[..] {
            [] => (&["sshjob_bytes=0\n"][..], ""),
            _ if script_in_head => (&[STORE][..], ""),
            _ => (&[ROOM, STORE_LATER][..], RECEIVE),
        };
        let before = [&[REFUSE, ALIVE, STOP, OOMS, ROOTS], store, &[PREPARE, receive, CLAIM]].concat();
        let before = before.into_iter().map(without_comments);
        let mut text = b"sshjob_seek() {\n:;".to_vec();
        text.extend_from_slice(&delivery.seeks);
        text.extend_from_slice(b"\n}\n");
        text.extend_from_slice(before.collect::<String>().as_bytes());
        text.extend_from_slice([SUPERVISE, SWEEP].map(without_comments).concat().as_bytes());
        Ok(Self { delivery, facts, supervisor: text, unit: terms.unit, script_in_head })
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
        let words = &self.delivery.words;
        // Variables that are ours change nothing that a shell looks at.
        let is_own = env.iter().any(|(name, _)| !name.starts_with("SSHJOB_"));
        let mark = format!("#{token}");
        // Exactly as large as needed: a vector that grows leaves copies of secrets behind.
        let job = 2 * mark.len() + "\n".len() + exports_len(env) + SEEK.len() + words.len();
        let mut job = Zeroizing::new(Vec::with_capacity(job));
        job.extend_from_slice(mark.as_bytes());
        job.push(b'\n');
        push_exports(&mut job, env);
        job.extend_from_slice(SEEK);
        job.extend_from_slice(words);
        job.extend_from_slice(mark.as_bytes());
        // A unit is given nothing by its caller.
        let (in_head, after_head) =
            if !self.unit && job.len() <= MAX_IN_HEAD { (&job[..], &[][..]) } else { (&[][..], &job[..]) };
        let facts = format!(
            "sshjob_token={token} sshjob_dir= sshjob_at={attempt} sshjob_env={} sshjob_length={} {}",
            if is_own { "own" } else { "" },
            after_head.len(),
            self.facts
        );
        let (before, after) = if self.unit { self.unit_head(&facts) } else { self.head(&facts) };
        // `load.sh` also checks what the text returns.
        let begins = format!(": {token};\n");
        let ends = if self.unit { format!(": {token}") } else { format!(": {token};return 7\n") };
        let length = begins.len() + before.len() + quoted_len(in_head) + after.len() + ends.len();
        let mut head = Zeroizing::new(Vec::with_capacity(length + after_head.len()));
        head.extend_from_slice(begins.as_bytes());
        head.extend_from_slice(&before);
        quote(&mut head, in_head);
        head.extend_from_slice(&after);
        head.extend_from_slice(ends.as_bytes());
        head.extend_from_slice(after_head);
        let (name, become_user) = (format!("sshjob:{attempt}"), &self.delivery.become_user);
        let script = if self.script_in_head { Arc::default() } else { Arc::clone(&self.delivery.script) };
        let command = if self.unit {
            command_line(&name, become_user, token, Reader::Dd, length, "")
        } else {
            let how = if after_head.is_empty() && script.is_empty() { "all" } else { "some" };
            let texts = [LAUNCH, LOAD].map(|text| format!("'{}' ", one_line(text).trim_end())).concat();
            shell_line("eval \"$1\"", &name, become_user, token, &(texts + how), length)
        };
        Ok(Parcel { command, head, script })
    }

    /// What is before and after the job, for the supervisor to read.
    fn head(&self, facts: &str) -> (Vec<u8>, Vec<u8>) {
        let mut before = format!("sshjob_supervise() {{\n{facts}\n").into_bytes();
        self.begin(&mut before);
        if self.script_in_head {
            before.extend_from_slice(b"sshjob_text=");
            quote(&mut before, &self.delivery.script);
            before.push(b'\n');
        }
        before.extend_from_slice(b"sshjob_job=");
        (before, [b"\n", &self.supervisor[..], b"}\n"].concat())
    }

    /// The same, of a head that hands it on to a unit.
    fn unit_head(&self, facts: &str) -> (Vec<u8>, Vec<u8>) {
        let mut before = b"sshjob_dir=\n".to_vec();
        self.begin(&mut before);
        before.extend_from_slice(b"sshjob_facts='");
        before.extend_from_slice(facts.as_bytes());
        if !self.delivery.script.is_empty() {
            before.extend_from_slice(b" '\"sshjob_bytes=$sshjob_bytes sshjob_sha256=$sshjob_sha256\"'");
        }
        before.extend_from_slice(b"\n'\nsshjob_supervisor=");
        quote(&mut before, &self.supervisor);
        before.extend_from_slice(b"\nsshjob_job=");
        let after = [HEAR, UNIT].map(without_comments).concat();
        (before, format!("\n{after}").into_bytes())
    }

    /// What comes first: it refuses what it must, and finds the home of who it has become. What is told of the job is no
    /// variable that a caller has exported.
    fn begin(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(b"unset sshjob_job sshjob_text\n");
        text.extend_from_slice(without_comments(REFUSE).as_bytes());
        text.extend_from_slice(&self.delivery.needs);
        text.extend_from_slice(if self.delivery.become_user.is_empty() { b"" } else { HOME_OF_ANOTHER });
    }
}

/// Whether every shell keeps `script` as it is in a variable.
fn fits_into_a_variable(script: &[u8]) -> bool {
    script.len() <= MAX_IN_HEAD && script.is_ascii() && !script.contains(&0)
}

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The attempt is claimed by this start and runs.
    Now,
    /// An earlier start had claimed it: where it stands is for the collector to tell.
    Before,
}

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
fn question(sudo: &Sudo, token: &Token, texts: &[&'static str], calls: &str) -> Result<Parcel, Undeliverable> {
    let texts: String = texts.iter().map(|text| without_comments(text)).collect();
    let head = format!(": {token};\n{texts}{calls}echo \"$sshjob_token end\"\nexit\n: {token}");
    let command = command_line("sshjob", &become_user(sudo)?, token, Reader::Dd, head.len(), "");
    Ok(Parcel { command, head: Zeroizing::new(head.into_bytes()), script: [].into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::collect::{Ask, How, Verdict, Why};
    use super::*;

    const TOKEN: &str = "07070707070707070707070707070707";

    fn attempt(number: u32) -> Attempt {
        Attempt { run: "a-20261122T221500Z".parse().unwrap(), instance: "web-1".parse().unwrap(), number }
    }

    fn asks() -> Vec<Ask> {
        vec![Ask::Look { attempt: attempt(1), out: 4099, err: 0, most: 4 }, Ask::Forget(attempt(2))]
    }

    /// An answer to [`asks`], every line with its token.
    fn answer(state: &str, err: &str, out: &str, last: &str) -> Vec<u8> {
        let skipped = "x".repeat(3);
        format!(
            "{TOKEN} look a-20261122T221500Z/web-1/1\n{TOKEN} {state}\n{TOKEN} err {err}\n\n\
             {TOKEN} out {out}\n{skipped}data\n{TOKEN} look a-20261122T221500Z/web-1/2\n{TOKEN} vanished\n{TOKEN} {last}\n"
        )
        .into_bytes()
    }

    const ENDED: &str = "exit 3 done 10.00 12.50 20.00 0 0";

    fn read(answer: &[u8]) -> Result<Vec<collect::Found>, Unreadable> {
        collect::read(&Token::new([7; 16]), &asks(), answer)
    }

    #[test]
    fn answer_is_read_to_its_last_word() {
        let found = read(&answer(ENDED, "0 - 0 0", "4103 17 3 4", "end")).unwrap();
        let [first, second] = &found[..] else { panic!("{found:?}") };
        let expected = Verdict::Ended {
            how: How::Exit(3),
            why: Why::Itself,
            took: Duration::from_millis(2500),
            ago: Some(Duration::from_millis(7500)),
        };
        assert_eq!((&first.verdict, &first.out.bytes[..], first.out.dropped), (&expected, &b"data"[..], Some(17)));
        assert_eq!(second.verdict, Verdict::Vanished);
    }

    #[test]
    fn verdicts_are_what_the_words_say() {
        let verdict =
            |state: &str| read(&answer(state, "0 - 0 0", "4103 - 3 4", "end")).map(|mut it| it.remove(0).verdict);
        let second = Duration::from_secs(1);
        let running = |supervised, beat| Verdict::Running { elapsed: 2 * second, supervised, beat };
        assert_eq!(verdict("running yes 1.00 2.00 3.00"), Ok(running(true, Some(second))));
        assert_eq!(verdict("running no 1.00 - 3.00"), Ok(running(false, None)));
        assert_eq!(verdict("rebooted"), Ok(Verdict::Rebooted));
        assert_eq!(verdict("killed - - -"), Ok(Verdict::Killed { why: Why::Itself, out_of_memory: false }));
        assert_eq!(verdict("killed cancelled 1 2"), Ok(Verdict::Killed { why: Why::Cancelled, out_of_memory: true }));
        for (before, after, out_of_memory) in [("1", "2", true), ("2", "2", false), ("-", "2", false)] {
            let ended = verdict(&format!("signal 9 timed_out 1.00 2.00 - {before} {after}"));
            let how = How::Signal { number: 9, out_of_memory };
            assert_eq!(ended, Ok(Verdict::Ended { how, why: Why::TimedOut, took: second, ago: None }));
        }
        let wrong = [
            "",
            "running",
            "running yes 1.00 2.00",
            "running yes 1.00 2.00 -",
            "running maybe 1.00 2.00 3.00",
            "running yes 1.00 2.00 3.00 4.00",
            "exit 256 done 1.00 2.00 3.00 0 0",
            "exit -1 done 1.00 2.00 3.00 0 0",
            "exit +1 done 1.00 2.00 3.00 0 0",
            "exit 0 fine 1.00 2.00 3.00 0 0",
            "exit 0 done 1 2 3 0 0",
            "exit 0 done",
            "signal 0 done 1.00 2.00 3.00 0 0",
            "quit 0 done 1.00 2.00 3.00 0 0",
            "killed",
            "rebooted twice",
            "exit",
        ];
        for state in wrong {
            assert!(verdict(state).is_err(), "{state}");
        }
    }

    #[test]
    fn answer_that_says_anything_else_is_not_believed() {
        let wrong = [
            answer(ENDED, "0 - 0 0", "4103 - 3 4", "end\n"),
            answer(ENDED, "0 - 0 0", "4103 - 3 4", "fin"),
            answer(ENDED, "1 - 0 0", "4103 - 3 4", "end"),
            answer(ENDED, "0 - 0 0", "4103 - 3 3", "end"),
            answer(ENDED, "0 - 0 0", "4104 - 3 5", "end"),
            answer(ENDED, "0 - 0 0", "4103 - 2 4", "end"),
            answer(ENDED, "0 - 0 0", "4103 - 3 18446744073709551615", "end"),
            answer(ENDED, "0 - 0 0", "4103 - 3 4", "end").replace_all(b"web-1", b"web-2"),
            answer(ENDED, "0 - 0 0", "4103 - 3 4", "end").replace_all(b"0707 look", b"0708 look"),
        ];
        for answer in wrong {
            assert!(read(&answer).is_err(), "{}", String::from_utf8_lossy(&answer));
        }
    }

    trait ReplaceAll {
        fn replace_all(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
    }

    impl ReplaceAll for Vec<u8> {
        fn replace_all(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            text(self).replace(&text(from), &text(to)).into_bytes()
        }
    }

    #[test]
    fn start_is_known_by_one_line_alone() {
        let token = Token::new([7; 16]);
        let read = |rest: &str| read_start(&token, format!("{TOKEN}{rest}").as_bytes());
        assert_eq!((read(" started\n"), read(" attached\n")), (Ok(Started::Now), Ok(Started::Before)));
        for rest in ["", " started", " started\nx", " attached\n\n", "started\n"] {
            assert!(read(rest).is_err(), "{rest:?}");
        }
        assert!(read_start(&token, b"").is_err());
    }

    #[test]
    fn survivors_are_named_whatever_they_call_themselves() {
        let (token, one) = (Token::new([7; 16]), attempt(1));
        let read = |rest: &[u8]| {
            let head = format!("{TOKEN} look {one}\n{TOKEN} signalled\n{TOKEN} survivor 12 a ");
            cancel::read(&token, &one, &[head.as_bytes(), rest].concat())
        };
        let end = |count: u32| format!("\n{TOKEN} survivors {count} yes\n{TOKEN} end\n").into_bytes();
        let cancelled = read(&[&b"b\x1b\xff"[..], &end(1)].concat()).unwrap();
        assert_eq!((cancelled.survivors, &*cancelled.named[0].name), (1, "a b\u{fffd}"));
        assert!(read(&end(2)).is_err() && read(b"").is_err());
    }

    #[test]
    fn parcel_has_exactly_the_size_that_was_reserved_and_shows_no_secret() {
        let script: std::sync::Arc<[u8]> = std::sync::Arc::from(*b"echo");
        for unit in [false, true] {
            let terms = Terms { timeout: Duration::MAX, max_output: u64::MAX, keep: Duration::ZERO, unit };
            let detached = Detached::new(Program::Script { bytes: &script, args: &[] }, &Sudo::Root, &terms).unwrap();
            let parcel = detached.parcel(&Token::new([1; 16]), &attempt(1), &[("PASS", b"hid'den")]).unwrap();
            assert_eq!(parcel.head.len(), parcel.head.capacity());
            assert!(!format!("{parcel:?}{}", parcel.command).contains("hid"));
            let numbers = "sshjob_limit=1000000000 sshjob_max=1152921504606846976 sshjob_keep=1";
            assert!(String::from_utf8(parcel.head.to_vec()).unwrap().contains(numbers));
        }
    }

    #[test]
    fn command_line_survives_every_login_shell() {
        for sudo in [Sudo::No, Sudo::Root, Sudo::User("app".into())] {
            for unit in [false, sudo == Sudo::Root] {
                let terms = Terms { timeout: Duration::MAX, max_output: 1, keep: Duration::MAX, unit };
                let detached = Detached::new(Program::Command(&[b"it's".to_vec()]), &sudo, &terms).unwrap();
                let line = detached.parcel(&Token::new([1; 16]), &attempt(1), &[("PASS", b"hid")]).unwrap().command;
                // C shells look in their history for what follows `!`, and limit words to 1024 characters.
                assert!(!line.contains(['\\', '\n', '\t', '!']) && line.is_ascii(), "{line}");
                let parts: Vec<&str> = line.split('\'').collect();
                assert!(
                    parts.len() == if unit { 3 } else { 7 } && parts.iter().all(|part| part.len() <= 1000),
                    "{line}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_be_read(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0..400_usize) {
            let mut bytes = answer(ENDED, "0 - 0 0", "4103 17 3 4", "end");
            let at = at.min(bytes.len());
            let tail = bytes.split_off(at);
            let cut = read(&bytes);
            prop_assert!(cut.is_err() || tail.is_empty());
            bytes.extend_from_slice(&noise);
            let _ = (read(&noise), read(&bytes), cancel::read(&Token::new([7; 16]), &attempt(1), &bytes));
        }
    }
}
