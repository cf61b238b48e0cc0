//! The real command line, run by real login shells and fed through a pipe, as an SSH server would.

mod arrival;
mod cost;
mod ending;
mod exact;

use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sshjob::domain::delivery::reply::{DeliveryError, Reader};
use sshjob::domain::delivery::{Delivery, Parcel, Program, Token};
use sshjob::domain::job::Sudo;
use tempfile::TempDir;

use crate::support::eventually::eventually;
use crate::support::skip;

/// Shells that people log in with.
const LOGIN_SHELLS: [&str; 8] = ["dash", "bash", "zsh", "fish", "tcsh", "ksh", "mksh", "busybox"];

/// Shells that stand at `/bin/sh` somewhere.
const BIN_SHELLS: [&str; 5] = ["dash", "bash", "busybox", "ksh", "mksh"];

/// More than any test takes; `ending` knows its number of seconds, with the margin.
const TIMEOUT: Duration = Duration::from_mins(10);

/// A machine: a home, a directory for temporary files, and who plays which part.
struct Host {
    root: TempDir,
    login: PathBuf,
    sh: PathBuf,
    path: Option<PathBuf>,
    before: String,
    leads: bool,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["home", "tmp", "bin"] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
        }
        Self { root, login: "/bin/sh".into(), sh: "/bin/sh".into(), path: None, before: String::new(), leads: true }
    }

    /// The same with `shell` as login shell; `None`, said aloud, where it is not installed.
    fn login(mut self, shell: &str) -> Option<Self> {
        self.login = self.named_sh(shell, "login")?;
        Some(self)
    }

    /// The same with `shell` in the place of `/bin/sh`.
    fn sh(mut self, shell: &str) -> Option<Self> {
        self.sh = self.named_sh(shell, "bin")?;
        Some(self)
    }

    /// Multi-call programs and shells with several characters go by the name that they are called by.
    fn named_sh(&self, shell: &str, role: &str) -> Option<PathBuf> {
        let Some(program) = which(shell) else {
            skip::missing(shell);
            return None;
        };
        if role == "login" && shell != "busybox" {
            return Some(program);
        }
        let link = self.root.path().join("sh");
        symlink(program, &link).unwrap();
        Some(link)
    }

    /// A `PATH` with these programs and no others.
    fn only(mut self, programs: &[(&str, &Path)]) -> Self {
        let bin = self.root.path().join("bin");
        for (name, program) in programs {
            symlink(program, bin.join(name)).unwrap();
        }
        self.path = Some(bin);
        self
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Starts a delivery; nothing of its standard input is sent yet.
    fn start(&self, delivery: &Delivery, env: &[(&str, &[u8])]) -> Session {
        let token = token();
        let parcel = delivery.parcel(&token, env).unwrap();
        self.start_parcel(token, parcel)
    }

    fn start_parcel(&self, token: Token, mut parcel: Parcel) -> Session {
        if self.sh != Path::new("/bin/sh") {
            let sh = self.sh.to_str().unwrap();
            let before = parcel.head.len();
            parcel.head = replace(&parcel.head, b"/bin/sh -c", format!("{sh} -c").as_bytes()).into();
            let (from, to) = (format!(" {before} {token}"), format!(" {} {token}", parcel.head.len()));
            parcel.command = parcel.command.replace("/bin/sh", sh).replace(&from, &to);
        }
        let mut command = Command::new(&self.login);
        command.arg("-c").arg(format!("{}{}", self.before, parcel.command));
        // No variable of the test runner's reaches the host.
        let path = self.path.clone().map_or_else(path, PathBuf::into_os_string);
        command.env_clear().env("PATH", path);
        command.env("HOME", self.dir("home")).env("TMPDIR", self.dir("tmp")).current_dir(self.dir("home"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.leads {
            command.process_group(0);
        }
        let mut child = command.spawn().unwrap();
        let out = drain(child.stdout.take().unwrap());
        let err = drain(child.stderr.take().unwrap());
        Session { child, parcel, token, out, err, homes: [self.dir("home"), self.dir("tmp")] }
    }

    /// Delivers, keeps the lifeline until the end, and checks that nothing is left behind.
    fn run(&self, delivery: &Delivery, env: &[(&str, &[u8])]) -> Ended {
        let mut session = self.start(delivery, env);
        session.send_all();
        session.end()
    }
}

/// A delivery under way.
struct Session {
    child: Child,
    parcel: Parcel,
    token: Token,
    out: JoinHandle<Vec<u8>>,
    err: JoinHandle<Vec<u8>>,
    homes: [PathBuf; 2],
}

/// How it ended: what the script wrote, and why it did not start if it did not.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    out: Vec<u8>,
    err: Vec<u8>,
    refusal: Option<DeliveryError>,
    started: bool,
}

impl Session {
    /// Sends; a host that has refused already reads no more.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.child.stdin.as_mut().unwrap().write_all(bytes);
    }

    fn send_all(&mut self) {
        let (head, script) = (self.parcel.head.clone(), Arc::clone(&self.parcel.script));
        self.send(&head);
        self.send(&script);
    }

    /// What closes the channel.
    fn close(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for the end of the leader, closes the channel as a server then does, and waits until all is tidied.
    fn end(mut self) -> Ended {
        // `Child::wait` would close the lifeline first.
        let stdin = self.child.stdin.take();
        let status = self.child.wait().unwrap();
        drop(stdin);
        let (out, err) = (self.out.join().unwrap(), self.err.join().unwrap());
        let places = ["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from).into_iter().chain(self.homes);
        for place in places {
            let left = place.join(format!(".sshjob-{}", self.token));
            eventually(&format!("{} is removed", left.display()), || left.symlink_metadata().is_err());
        }
        let watchdog = format!("{}\0", self.token);
        eventually("no process of the delivery is left", || !any_process_says(&watchdog));
        let (mut from_out, mut from_err) = (Reader::new(&self.token), Reader::new(&self.token));
        let out = from_out.feed(&out);
        let err = from_err.feed(&err);
        let refusal = out.as_ref().err().or(err.as_ref().err()).cloned();
        let started = from_out.started() && from_err.started();
        let (out, err) = (out.unwrap_or_default().to_vec(), err.unwrap_or_default().to_vec());
        Ended { status, out, err, refusal, started }
    }
}

impl Ended {
    /// Nothing of the script has run.
    #[track_caller]
    fn assert_never_started(&self) {
        assert!(!self.started && self.out.is_empty() && self.err.is_empty(), "{self:?}");
    }
}

fn script(text: impl AsRef<[u8]>, args: &[&[u8]]) -> Delivery {
    let bytes = Arc::from(text.as_ref());
    let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
    Delivery::new(Program::Script { bytes: &bytes, args: &args }, &Sudo::No, TIMEOUT).unwrap()
}

fn command(words: &[&[u8]]) -> Delivery {
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    Delivery::new(Program::Command(&words), &Sudo::No, TIMEOUT).unwrap()
}

fn token() -> Token {
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    Token::new(random)
}

#[expect(clippy::disallowed_methods, reason = "where this machine's programs are")]
fn path() -> OsString {
    std::env::var_os("PATH").unwrap()
}

fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn any_process_says(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line.windows(text.len()).any(|window| window == text.as_bytes()))
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match text.windows(from.len()).position(|window| window == from) {
        Some(at) => [&text[..at], to, &replace(&text[at + from.len()..], from, to)].concat(),
        None => text.to_vec(),
    }
}
