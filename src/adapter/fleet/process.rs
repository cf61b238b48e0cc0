//! A command on an embedded host: a process group that lives no longer than its SSH channel.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::mem::discriminant;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::domain::script::MAX_SCRIPT_BYTES;

/// Most input that waits for a command to read it. The SSH library grants a peer new window when it receives data,
/// not when it is read, so that input has to be held here; twice the longest script is more than any job sends.
const MAX_WAITING_INPUT: usize = 2 * MAX_SCRIPT_BYTES;

/// Read at most this much output at a time: what fits into one packet.
const PIECE: usize = 32 * 1024;

/// The signals that SSH can name (RFC 4254, section 6.10).
const SIGNALS: [(Signal, Sig); 12] = [
    (Signal::ABORT, Sig::ABRT),
    (Signal::ALARM, Sig::ALRM),
    (Signal::FPE, Sig::FPE),
    (Signal::HUP, Sig::HUP),
    (Signal::ILL, Sig::ILL),
    (Signal::INT, Sig::INT),
    (Signal::KILL, Sig::KILL),
    (Signal::PIPE, Sig::PIPE),
    (Signal::QUIT, Sig::QUIT),
    (Signal::SEGV, Sig::SEGV),
    (Signal::TERM, Sig::TERM),
    (Signal::USR1, Sig::USR1),
];

/// The process groups that run on the hosts of a fleet.
///
/// A group is listed only while its leader is not reaped, so that its number belongs to nobody else; whoever signals
/// one holds the list.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<Groups>);

#[derive(Debug, Default)]
struct Groups {
    started: u64,
    leaders: BTreeMap<u64, Pid>,
}

impl Running {
    /// Kills them all.
    pub(super) fn kill_all(&self) {
        for leader in self.groups().leaders.values() {
            // There may be nobody left to kill, here and below.
            let _ = kill_process_group(*leader, Signal::KILL);
        }
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, leader: Pid) -> Group {
        let mut groups = self.groups();
        groups.started += 1;
        let number = groups.started;
        groups.leaders.insert(number, leader);
        Group { number, running: Arc::clone(self) }
    }

    fn signal(&self, number: u64, signal: Signal) {
        if let Some(leader) = self.groups().leaders.get(&number) {
            let _ = kill_process_group(*leader, signal);
        }
    }
}

/// A listed process group. Dropping it kills the group and takes it off the list; only then is its leader reaped.
#[derive(Debug)]
struct Group {
    number: u64,
    running: Arc<Running>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.running.groups().leaders.remove(&self.number) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Where and as whom a command runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login<'a> {
    /// The home directory, and where it starts.
    pub(super) home: &'a Path,
    /// The host's own programs, found before the system's.
    pub(super) programs: &'a Path,
    /// The name that was logged in with.
    pub(super) user: &'a str,
    /// Where its process group is kept.
    pub(super) running: &'a Arc<Running>,
}

/// The channel's end of a running command. Dropping it kills the command and all of its process group.
#[derive(Debug)]
pub(super) struct Process {
    group: u64,
    running: Arc<Running>,
    input: Option<UnboundedSender<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
    ending: CancellationToken,
}

impl Process {
    /// Starts `/bin/sh -c command` and ties it to a channel: output and exit go there by themselves.
    pub(super) fn start(
        command: &[u8],
        login: Login<'_>,
        channel: ChannelWriteHalf<Msg>,
        session: Handle,
    ) -> io::Result<Self> {
        // Listen first, or the command could end unheard.
        let mut child_signal = signal(SignalKind::child())?;
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(OsStr::from_bytes(command))
            .env_clear()
            .env("HOME", login.home)
            .env("LOGNAME", login.user)
            .env("USER", login.user)
            .env("SHELL", "/bin/sh")
            .env(
                "PATH",
                format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", login.programs.display()),
            )
            .current_dir(login.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let leader = leader.ok_or_else(|| io::Error::other("the command has no process id"))?;
        let group = login.running.add(leader);

        let (input, queue) = unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let ending = CancellationToken::new();
        let process = Self {
            group: group.number,
            running: Arc::clone(login.running),
            input: Some(input),
            waiting: Arc::clone(&waiting),
            ending: ending.clone(),
        };
        tokio::spawn(async move {
            let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let feeding = async {
                feed(stdin, queue, &waiting).await;
                std::future::pending::<()>().await;
            };
            let exit = async {
                loop {
                    match waitid(
                        WaitId::Pid(leader),
                        WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
                    ) {
                        Ok(None) => child_signal.recv().await,
                        Ok(Some(status)) => return report(&status, &session, channel.id()).await,
                        Err(_) => return,
                    };
                }
            };
            // As with OpenSSH the exit is told at once, and the channel stays open while somebody holds the output.
            let done = async { tokio::join!(exit, drain(stdout, &channel, None), drain(stderr, &channel, Some(1))) };
            tokio::select! {
                () = ending.cancelled() => {}
                () = feeding => {}
                _ = done => {}
            }
            drop(group);
            let _ = channel.eof().await;
            let _ = channel.close().await;
            let _ = child.wait().await;
        });
        Ok(process)
    }

    /// Hands over input; ends the command where more waits than may be held.
    pub(super) fn write(&self, bytes: &[u8]) {
        let Some(input) = &self.input else { return };
        let waiting = self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        if waiting.saturating_add(bytes.len()) > MAX_WAITING_INPUT {
            self.ending.cancel();
        } else if input.send(bytes.to_vec()).is_err() {
            // It reads no more; what is sent now is dropped, as a closed pipe would.
            self.waiting.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it has ended and told so: nothing of it is left but its client's word that the channel is closed.
    pub(super) fn is_over(&self) -> bool {
        !self.running.groups().leaders.contains_key(&self.group)
    }

    /// Says that no more input comes.
    pub(super) fn end_input(&mut self) {
        self.input = None;
    }

    /// Sends a signal to all of the process group.
    pub(super) fn signal(&self, wanted: &Sig) {
        if let Some((signal, _)) = SIGNALS.iter().find(|(_, sig)| discriminant(sig) == discriminant(wanted)) {
            self.running.signal(self.group, *signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.ending.cancel();
    }
}

/// Writes queued input to the command until there is no more or it reads no more.
async fn feed(stdin: Option<ChildStdin>, mut queue: UnboundedReceiver<Vec<u8>>, waiting: &AtomicUsize) {
    let Some(mut stdin) = stdin else { return };
    while let Some(bytes) = queue.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
}

/// Sends output to the channel as its window allows, until it ends.
async fn drain(output: Option<impl AsyncRead + Unpin>, channel: &ChannelWriteHalf<Msg>, kind: Option<u32>) {
    let Some(mut output) = output else { return };
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        if !matches!(output.read_buf(&mut piece).await, Ok(1..)) {
            return;
        }
        let sent = match kind {
            None => channel.data_bytes(piece).await,
            Some(kind) => channel.extended_data_bytes(kind, piece).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Tells how a command ended: its status or its signal, never both.
async fn report(status: &WaitIdStatus, session: &Handle, channel: russh::ChannelId) {
    let _ = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => session.exit_status_request(channel, code.unsigned_abs()).await,
        (None, Some(number)) => {
            let known = SIGNALS.into_iter().find(|(signal, _)| signal.as_raw() == number);
            // What OpenSSH calls the signals that SSH has no name for.
            let name = known.map_or_else(|| Sig::Custom("SIG@openssh.com".to_owned()), |(_, name)| name);
            session.exit_signal_request(channel, name, status.dumped(), String::new(), String::new()).await
        }
        (None, None) => Ok(()),
    };
}
