//! The real texts, run by real shells and fed through a pipe, as an SSH server would.

mod cancelled;
mod clock;
mod cost;
mod killed;
mod left;
mod once;
mod server;
mod shown;
mod swept;
mod told;

use crate::support::eventually::eventually;
use crate::support::skip;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sshjob::domain::delivery::reply::{DeliveryError, Reader};
use sshjob::domain::delivery::{Parcel, Program, Token};
use sshjob::domain::detached::collect::{Ask, Found, How, Piece, Verdict, Why};
use sshjob::domain::detached::{Attempt, Detached, Started, Terms, Unreadable, cancel, collect, read_start};
use sshjob::domain::job::Sudo;
use tempfile::TempDir;

/// Shells that stand at `/bin/sh` somewhere.
const BIN_SHELLS: [&str; 5] = ["dash", "bash", "busybox", "ksh", "mksh"];

/// More than any test takes, and few enough bytes to go beyond.
const TERMS: Terms =
    Terms { timeout: Duration::from_mins(10), max_output: 1 << 30, keep: Duration::from_hours(7 * 24), unit: false };

/// A machine: a home, a place of last resort, and who plays which part.
struct Host {
    root: TempDir,
    sh: PathBuf,
    path: Option<PathBuf>,
    /// What its sessions have in their environment.
    variables: Vec<(&'static str, OsString)>,
    /// Files that the system has, by our own path of each.
    stand_ins: Vec<(&'static str, PathBuf)>,
    /// The process whose mounts it sees, where they are not everybody's.
    mounts: Option<Child>,
    /// Where to write what each process does that starts another.
    traces: Option<PathBuf>,
    /// Whether every command leads a session of its own, as OpenSSH has it; else it leads a process group of ours.
    makes_sessions: bool,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["home", "spare", "bin"] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
        }
        let (variables, stand_ins) = (Vec::new(), Vec::new());
        Self {
            root,
            sh: "/bin/sh".into(),
            path: None,
            variables,
            stand_ins,
            mounts: None,
            traces: None,
            makes_sessions: true,
        }
    }

    /// The same with `shell` in the place of `/bin/sh`; `None`, said aloud, where it is not installed.
    fn sh(mut self, shell: &str) -> Option<Self> {
        let Some(program) = which(shell) else {
            skip::missing(shell);
            return None;
        };
        // Multi-call programs and shells with several characters go by the name that they are called by.
        self.sh = self.dir("sh");
        symlink(program, &self.sh).unwrap();
        Some(self)
    }

    /// All shells that are here in the place of `/bin/sh`; the first two also below a server that makes no sessions.
    fn of_every_shell() -> Vec<(&'static str, Self)> {
        let of = |shell: &'static str| Some((shell, Self::new().sh(shell)?));
        let without = |(shell, mut host): (_, Self)| {
            host.makes_sessions = false;
            (shell, host)
        };
        let others = BIN_SHELLS.into_iter().take(2).filter_map(of).map(without);
        let hosts: Vec<_> = BIN_SHELLS.into_iter().filter_map(of).chain(others).collect();
        assert!(!hosts.is_empty(), "no shell was tried");
        hosts
    }

    /// A `PATH` with these programs and no others.
    fn only(mut self, programs: &[(&str, &Path)]) -> Self {
        for (name, program) in programs {
            symlink(program, self.dir("bin").join(name)).unwrap();
        }
        self.path = Some(self.dir("bin"));
        self
    }

    /// The same with a file of our own in the place of the system's file `name`.
    fn stand_in(mut self, name: &'static str, text: &str) -> Self {
        let path = self.dir(&name.replace('/', "-"));
        std::fs::write(&path, text).unwrap();
        self.stand_ins.push((name, path));
        self
    }

    /// The same with a home of `size`; `None`, said aloud, where the system does not allow that.
    fn small(mut self, size: &str) -> Option<Self> {
        let mount = format!("mount -t tmpfs -o size={size} none {} && echo up && read end", self.dir("home").display());
        let mut holder = Command::new("unshare");
        holder.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut up = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut up).unwrap();
        if up != "up\n" {
            skip::skipped("this system allows no mount in a namespace of one's own");
            holder.wait().unwrap();
            return None;
        }
        self.mounts = Some(holder);
        Some(self)
    }

    /// A program on this machine.
    fn command(&self, program: &str) -> Command {
        if let Some(traces) = &self.traces {
            let mut command = Command::new("strace");
            command
                .args(["-ff", "-qq", "-s", "0", "-e", "trace=execve", "-e", "signal=none", "-o"])
                .arg(traces)
                .arg(program);
            return command;
        }
        let Some(holder) = &self.mounts else { return Command::new(program) };
        let mut command = Command::new(which("nsenter").unwrap());
        command.args(["--target", &holder.id().to_string(), "--user", "--mount", "--preserve-credentials", program]);
        command
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The directory of `attempt`'s owner in the home; where it has none, the one of a start that was cut.
    fn home_of(&self, attempt: &Attempt) -> PathBuf {
        let attempt = self.dir("home").join(".sshjob").join(attempt.to_string());
        let owner = std::fs::read_to_string(attempt.join("owner")).unwrap_or_else(|_| "0".repeat(32));
        attempt.join(owner.trim_end())
    }

    /// The same, as if the attempt had one.
    fn owned(&self, attempt: &Attempt) -> PathBuf {
        let dir = self.home_of(attempt);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.with_file_name("owner"), dir.file_name().unwrap().to_str().unwrap()).unwrap();
        dir
    }

    /// Starts what a parcel is for; nothing of its standard input is sent yet.
    fn open(&self, mut parcel: Parcel) -> Session {
        let (rest, token) = parcel.command.rsplit_once(' ').unwrap();
        let (rest, length) = rest.rsplit_once(' ').unwrap();
        let (head, job) = parcel.head.split_at(length.parse().unwrap());
        let sh = self.sh.to_str().unwrap();
        let head = replace(head, b"/bin/sh -c", format!("{sh} -c").as_bytes());
        let head = replace(&head, b"/var/tmp/sshjob-", format!("{}/sshjob-", self.dir("spare").display()).as_bytes());
        let head = replace(&head, b"/run/sshjob-", format!("{}/sshjob-", self.dir("spare").display()).as_bytes());
        let replaced = |head: Vec<u8>, (name, path): &(&str, PathBuf)| {
            replace(&head, name.as_bytes(), path.to_str().unwrap().as_bytes())
        };
        let head = self.stand_ins.iter().fold(head, replaced);
        let line = format!("{} {} {token}", rest.replace("/bin/sh", sh).replace("sudo -n -- ", ""), head.len());
        parcel.head = [&head, job].concat().into();
        // The server's, not the host's.
        let setsid = which("setsid").unwrap();
        let mut command = self.command(if self.makes_sessions { setsid.to_str().unwrap() } else { "/bin/sh" });
        if self.makes_sessions {
            command.arg("/bin/sh");
        } else {
            command.process_group(0);
        }
        command.arg("-c").arg(line);
        // No variable of the test runner's reaches the host.
        command.env_clear().env("PATH", self.path.clone().map_or_else(path, PathBuf::into_os_string));
        command.env("HOME", self.dir("home")).current_dir(self.dir("home"));
        command.envs(self.variables.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let byte = |n: usize| u8::from_str_radix(&token[2 * n..2 * n + 2], 16).unwrap();
        let token = Token::new(std::array::from_fn(byte));
        Session { child: command.spawn().unwrap(), parcel, token }
    }

    fn ask(&self, parcel: Parcel) -> Result<Vec<u8>, DeliveryError> {
        let mut session = self.open(parcel);
        session.send_all();
        session.end()
    }

    fn start_on(&self, terms: &Terms, program: Program<'_>, attempt: &Attempt) -> Result<Started, DeliveryError> {
        let token = token();
        let (number, env) = (attempt.number.to_string(), attempt);
        let env: [(&str, &[u8]); 4] = [
            ("SSHJOB_RUN_ID", env.run.as_str().as_bytes()),
            ("SSHJOB_INSTANCE", env.instance.as_str().as_bytes()),
            ("SSHJOB_ATTEMPT", number.as_bytes()),
            ("SECRET", b"hidden from files"),
        ];
        let detached = Detached::new(program, &Sudo::No, terms).unwrap();
        let answer = self.ask(detached.parcel(&token, attempt, &env).unwrap())?;
        read_start(&token, &answer).map_err(|error| DeliveryError::Unknown(error.to_string()))
    }

    fn start(&self, script: &str, attempt: &Attempt) -> Result<Started, DeliveryError> {
        self.start_on(&TERMS, Program::Script { bytes: &Arc::from(script.as_bytes()), args: &[] }, attempt)
    }

    fn asked(&self, asks: &[Ask]) -> Result<Vec<Found>, Unreadable> {
        let token = token();
        let answer = self.ask(collect::parcel(&Sudo::No, &token, asks).unwrap()).unwrap();
        assert!(answer.len() as u64 <= collect::max_answer(asks));
        collect::read(&token, asks, &answer).inspect_err(|_| eprintln!("{}", String::from_utf8_lossy(&answer)))
    }

    fn look(&self, attempt: &Attempt, out: u64, err: u64, most: u32) -> Found {
        self.asked(&[Ask::Look { attempt: attempt.clone(), out, err, most }]).unwrap().remove(0)
    }

    fn verdict(&self, attempt: &Attempt) -> Verdict {
        self.look(attempt, 0, 0, 0).verdict
    }

    /// Looks until the attempt does not run any more, and then at all of its output.
    #[track_caller]
    fn wait(&self, attempt: &Attempt) -> Found {
        eventually("it has ended", || !matches!(self.verdict(attempt), Verdict::Running { .. }));
        self.look(attempt, 0, 0, collect::MAX_PIECE)
    }

    fn cancel(&self, attempt: &Attempt) -> cancel::Cancelled {
        let token = token();
        let answer = self.ask(cancel::parcel(&Sudo::No, &token, attempt).unwrap()).unwrap();
        cancel::read(&token, attempt, &answer).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&answer)))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut holder) = self.mounts.take() {
            // The end of its input ends it.
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}

/// A channel.
struct Session {
    child: Child,
    parcel: Parcel,
    token: Token,
}

impl Session {
    /// Sends; a host that has answered already reads no more.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.child.stdin.as_mut().unwrap().write_all(bytes);
    }

    fn send_all(&mut self) {
        let (head, script) = (self.parcel.head.clone(), Arc::clone(&self.parcel.script));
        self.send(&head);
        self.send(&script);
    }

    /// Reads the answer to its end, while the channel stays open: nobody of the job's may hold it.
    fn end(mut self) -> Result<Vec<u8>, DeliveryError> {
        let stdin = self.child.stdin.take();
        let output = self.child.wait_with_output().unwrap();
        drop(stdin);
        let (mut out, mut err) = (Reader::new(&self.token), Reader::new(&self.token));
        err.feed(&output.stderr)?;
        let answer = out.feed(&output.stdout)?.to_vec();
        assert_eq!(out.started(), err.started(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(answer)
    }
}

/// An attempt that no other test has.
fn attempt(number: u32) -> Attempt {
    let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
    let instance = format!("-w:1%@+_.{}.{thread}", std::process::id());
    Attempt { run: "nightly-20261122T221500Z".parse().unwrap(), instance: instance.parse().unwrap(), number }
}

fn token() -> Token {
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    Token::new(random)
}

/// How a verdict says that it ended.
#[track_caller]
fn how(verdict: &Verdict) -> (How, Why) {
    match verdict {
        Verdict::Ended { how, why, .. } => (*how, *why),
        other => panic!("{other:?}"),
    }
}

const fn signal(number: u8) -> How {
    How::Signal { number, out_of_memory: false }
}

fn whole(bytes: &[u8]) -> Piece {
    Piece { bytes: bytes.to_vec(), stored: bytes.len() as u64, dropped: None }
}

#[expect(clippy::disallowed_methods, reason = "where this machine's programs are")]
fn path() -> OsString {
    std::env::var_os("PATH").unwrap()
}

fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match text.windows(from.len()).position(|window| window == from) {
        Some(at) => [&text[..at], to, &replace(&text[at + from.len()..], from, to)].concat(),
        None => text.to_vec(),
    }
}
