//! Real OpenSSH daemons on loopback addresses, run as whoever runs the tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};

use russh::keys::{PrivateKey, PublicKey};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, kill_process, pidfd_open, pidfd_send_signal};

use super::eventually::eventually;
use super::{key, loopback};

/// OpenSSH's own limit of listening sockets per daemon (`MAX_LISTEN_SOCKS` in `sshd.c`).
const MAX_ADDRESSES: usize = 16;

/// The user whom the daemons let in: the one who runs the tests, for nobody else could they become.
pub(crate) fn user() -> String {
    let id = geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    };
    users.lines().find_map(of).expect("the user who runs the tests has a name")
}

/// What a daemon is to be like.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Where it listens; none means one free address.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Who it proves to be.
    pub(crate) host_key: PrivateKey,
    /// Whom it lets in.
    pub(crate) accepted: Vec<PublicKey>,
    /// Whether sessions get a `HOME` of the daemon's own rather than the user's, whose start-up files may say and do
    /// anything: bash reads them for every command that comes by sshd.
    pub(crate) own_home: bool,
    /// More lines of its configuration.
    pub(crate) lines: Vec<String>,
}

impl Spec {
    /// A sound host that lets `accepted` in.
    pub(crate) fn accepting(accepted: &PublicKey) -> Self {
        Self {
            addresses: Vec::new(),
            host_key: key::fresh(),
            accepted: vec![accepted.clone()],
            own_home: true,
            lines: Vec::new(),
        }
    }
}

/// A running daemon; dropping it kills it and all that it started and that has not left it.
pub(crate) struct Sshd {
    spec: Spec,
    folder: tempfile::TempDir,
    daemon: Daemon,
}

impl Sshd {
    /// Starts a daemon; it listens when this returns.
    pub(crate) fn start(mut spec: Spec) -> Self {
        if spec.addresses.is_empty() {
            spec.addresses = loopback::free(1);
        }
        assert!(spec.addresses.len() <= MAX_ADDRESSES, "one daemon listens on at most {MAX_ADDRESSES} addresses");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("home")).unwrap();
        let daemon = Daemon::start(&spec, folder.path());
        Self { spec, folder, daemon }
    }

    /// Where it listens first.
    pub(crate) fn address(&self) -> SocketAddr {
        self.spec.addresses[0]
    }

    /// Everywhere it listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.spec.addresses
    }

    /// Who it proves to be.
    pub(crate) fn host_key(&self) -> &PublicKey {
        self.spec.host_key.public_key()
    }

    /// The `HOME` of its sessions, where it is its own.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Has it read its configuration again, as for `systemctl reload`: it listens anew when this returns, and what runs
    /// goes on.
    pub(crate) fn reload(&self) {
        let listening = || self.log().matches("Server listening on ").count();
        let before = listening();
        self.daemon.signal(Signal::HUP);
        while listening() < before + self.spec.addresses.len() {
            std::thread::yield_now();
        }
    }

    /// Kills the processes that serve its connections, and none that these have started; tells how many there were.
    pub(crate) fn kill_sessions(&self) -> usize {
        // Stopped, they start nobody new; whom they had started by then is still one of them until it is a shell.
        let stopped = self.sessions();
        let send = |pids: &[Pid], signal| {
            for pid in pids {
                let _ = kill_process(*pid, signal);
            }
        };
        send(&stopped, Signal::STOP);
        let sessions = self.sessions();
        send(&sessions, Signal::KILL);
        // One of them may have become a shell meanwhile.
        send(&stopped, Signal::CONT);
        sessions.len()
    }

    /// The processes that serve its connections.
    fn sessions(&self) -> Vec<Pid> {
        let is_sshd =
            |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("sshd"));
        let (parents, mut sessions) = (parents(), vec![i32::try_from(self.daemon.child.id()).unwrap()]);
        let mut next = 0;
        while let Some(parent) = sessions.get(next).copied() {
            sessions.extend(parents.iter().filter(|(pid, it)| **it == parent && is_sshd(**pid)).map(|(pid, _)| *pid));
            next += 1;
        }
        sessions.into_iter().skip(1).filter_map(Pid::from_raw).collect()
    }

    /// Waits until nothing runs any more that it has started.
    pub(crate) fn wait_until_idle(&self) {
        let mark = format!("HOME={}", self.home().display());
        let daemon = i32::try_from(self.daemon.child.id()).unwrap();
        let is_left = |pid: i32, parent: i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            parent == daemon || environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        // Who ends while the list is gone through may have started somebody who is not in it, and who becomes another
        // program has no environment for a moment: one look proves nothing.
        let mut idle_looks = 0;
        let is_idle = || {
            let is_left = parents().into_iter().any(|(pid, parent)| is_left(pid, parent));
            idle_looks = if is_left { 0 } else { idle_looks + 1 };
            idle_looks == 3
        };
        eventually(&format!("nothing of {} runs any more", self.address()), is_idle);
    }

    /// Kills it and starts it again at the same address, changed by `change`.
    pub(crate) fn restart(&mut self, change: impl FnOnce(&mut Spec)) {
        self.daemon.stop();
        change(&mut self.spec);
        self.daemon = Daemon::start(&self.spec, self.folder.path());
    }
}

/// Many addresses of hosts that are all alike: for numbers, not for differences.
pub(crate) struct SshdFleet {
    login: key::Login,
    daemons: Vec<Sshd>,
}

impl SshdFleet {
    /// Starts as few daemons as listen on `count` addresses, all with one host key and one login key.
    pub(crate) fn same(count: usize) -> Self {
        let login = key::Login::fresh();
        let spec = Spec::accepting(login.public());
        let daemons = loopback::free(count)
            .chunks(MAX_ADDRESSES)
            .map(|addresses| Sshd::start(Spec { addresses: addresses.to_vec(), ..spec.clone() }))
            .collect();
        Self { login, daemons }
    }

    /// Where they listen, one port on every address.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.daemons.iter().flat_map(Sshd::addresses).copied().collect()
    }

    /// Who all of them prove to be.
    pub(crate) fn host_key(&self) -> &PublicKey {
        self.daemons[0].host_key()
    }

    /// What the first daemon has logged so far.
    pub(crate) fn log_of_first(&self) -> String {
        self.daemons[0].log()
    }

    /// The `HOME` of the first daemon's sessions, which all of its hosts share.
    pub(crate) fn home_of_first(&self) -> PathBuf {
        self.daemons[0].home()
    }

    /// Waits until nothing runs any more that they have started.
    pub(crate) fn wait_until_idle(&self) {
        self.daemons.iter().for_each(Sshd::wait_until_idle);
    }

    /// Kills them and starts them again, changed by `change`; what has left them runs on.
    pub(crate) fn restart(&mut self, change: impl Fn(&mut Spec)) {
        self.daemons.iter_mut().for_each(|daemon| daemon.restart(&change));
    }

    /// Starts them anew, each as somebody else than before.
    pub(crate) fn change_host_keys(&mut self) {
        self.daemons.iter_mut().for_each(|daemon| daemon.restart(|spec| spec.host_key = key::fresh()));
    }

    /// The key that they accept.
    pub(crate) fn login(&self) -> &key::Login {
        &self.login
    }
}

/// The process behind a daemon.
pub(super) struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    fn start(spec: &Spec, folder: &Path) -> Self {
        let config = folder.join("sshd_config");
        std::fs::write(&config, configuration(spec, folder)).unwrap();
        let mut command = command();
        command.args(["-D", "-e", "-f"]).arg(&config);
        Self::spawn(command, spec.addresses.len())
    }

    /// Starts `command`, which becomes an sshd with `expected` addresses; it listens when this returns.
    pub(super) fn spawn(mut command: Command, expected: usize) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("`sshd` starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, listening) = mpsc::channel();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            let (mut ready, mut open) = (Some(ready), 0);
            for line in stderr.lines().map_while(Result::ok) {
                writeln!(sink.lock().unwrap(), "{line}").unwrap();
                open += usize::from(line.starts_with("Server listening on "));
                if open == expected {
                    ready.take().map(|ready| ready.send(()));
                } else if line.starts_with("error: Bind to port") {
                    // It would go on with the addresses that it got.
                    ready = None;
                }
            }
        });
        let daemon = Self { child, log };
        // The sender also goes when the daemon ends: a failure is seen at once.
        assert!(listening.recv().is_ok(), "sshd did not start:\n{}", daemon.log.lock().unwrap());
        daemon
    }

    fn signal(&self, signal: Signal) {
        let daemon = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(daemon, signal).unwrap();
    }

    /// What it has logged so far.
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Kills the daemon and its descendants. Connections have sessions of their own, so a process group is not enough;
    /// the daemon stays in the test's, so that whoever kills the test kills it too.
    pub(super) fn stop(&mut self) {
        let Ok(Some(daemon)) = i32::try_from(self.child.id()).map(Pid::from_raw) else { return };
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Stopped, it starts nobody new and reaps nobody.
        let _ = kill_process(daemon, Signal::STOP);
        let parents = parents();
        let mut doomed = vec![daemon.as_raw_pid()];
        let mut next = 0;
        while let Some(parent) = doomed.get(next).copied() {
            doomed.extend(parents.iter().filter(|(_, it)| **it == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        let hold = |pid: Pid| {
            // A process that is held by a descriptor and still has its parent is the one that was listed.
            let held = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            (parent(pid.as_raw_pid()) == parents.get(&pid.as_raw_pid()).copied()).then_some(held)
        };
        // All are held before the first is killed, which takes the parent of others away.
        let certain: Vec<_> = doomed.into_iter().skip(1).filter_map(Pid::from_raw).filter_map(hold).collect();
        for process in certain {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Every process's parent.
fn parents() -> BTreeMap<i32, i32> {
    let entries = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// A process's parent, the second field after the name in parentheses (proc(5)).
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// `sshd` by its absolute path, which it needs to execute itself again.
pub(super) fn program() -> &'static str {
    let places = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"];
    let place = places.into_iter().find(|place| Path::new(place).exists());
    place.expect("`sshd` is installed: run `tests/run`, or install `openssh-server`")
}

fn command() -> Command {
    if geteuid().is_root() {
        // Root's daemon locks itself up here; only the system's own service creates it.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    Command::new(program())
}

fn configuration(spec: &Spec, folder: &Path) -> String {
    let (host_key, accepted) = (folder.join("host_key"), folder.join("authorized_keys"));
    key::write(&spec.host_key, &host_key);
    let keys: String = spec.accepted.iter().map(|key| key.to_openssh().unwrap() + "\n").collect();
    std::fs::write(&accepted, keys).unwrap();
    let mut lines = vec![
        format!("HostKey {}", host_key.display()),
        format!("AuthorizedKeysFile {}", accepted.display()),
        "PidFile none".to_owned(),
        // Temporary folders are everybody's.
        "StrictModes no".to_owned(),
        format!("UsePAM {}", if is_locked() { "yes" } else { "no" }),
        "PermitRootLogin prohibit-password".to_owned(),
        "PasswordAuthentication no".to_owned(),
        "KbdInteractiveAuthentication no".to_owned(),
        "UseDNS no".to_owned(),
        // Hundreds of hosts are one daemon here.
        "MaxStartups 10000".to_owned(),
    ];
    // Of two lines the first counts.
    if !spec.lines.iter().any(|line| line.starts_with("LogLevel ")) {
        lines.push("LogLevel VERBOSE".to_owned());
    }
    lines.extend(without_penalties());
    if spec.own_home {
        lines.push(format!("SetEnv HOME={}", folder.join("home").display()));
    }
    lines.extend(spec.addresses.iter().map(|address| format!("ListenAddress {address}")));
    lines.extend(spec.lines.iter().cloned());
    lines.join("\n") + "\n"
}

/// Whether root's account is locked; without PAM sshd lets nobody into a locked account.
fn is_locked() -> bool {
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    let user = user();
    shadow.lines().any(|line| line.strip_prefix(&user).is_some_and(|rest| rest.starts_with(":!")))
}

/// What keeps sshd from slowing down sources that fail, where it knows how to.
pub(super) fn without_penalties() -> Option<String> {
    knows_penalties().then(|| "PerSourcePenalties no".to_owned())
}

/// Whether this OpenSSH (9.8 or later) slows down sources that fail, and can be told not to.
fn knows_penalties() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let host_key = folder.path().join("host_key");
        key::write(&key::fresh(), &host_key);
        let mut command = command();
        command.args(["-t", "-f", "/dev/null", "-o", "PerSourcePenalties=no", "-h"]).arg(&host_key);
        command.stderr(Stdio::null()).status().unwrap().success()
    })
}
