//! A real sshd on a machine of its own, where users with any login shell, password, expiry and home live.
//!
//! The machine is a private mount namespace with its own `/etc`, `/home`, `/run`, `/tmp`, `/var/tmp`, `/var/log` and
//! `/dev/shm`, all in memory, and a process namespace that dies with the daemon or with the test. Its network is ours.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use russh::keys::{PrivateKey, PublicKey};
use rustix::process::geteuid;

use super::sshd::{self, Daemon};
use super::{key, loopback, skip};

/// What a machine is to be like.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Who it proves to be.
    pub(crate) host_key: PrivateKey,
    /// The keys with which every user comes in.
    pub(crate) accepted: Vec<PublicKey>,
    /// Lines of its sshd's configuration; `Match` blocks come last.
    pub(crate) lines: Vec<String>,
    /// What its root does before sshd starts, for `/bin/sh`, with the words of `machine.sh`.
    pub(crate) setup: String,
    /// Whether it has a disk, at `/run/machine/disk`, whose files are there again after a restart.
    pub(crate) has_disk: bool,
}

impl Plan {
    /// A machine without users, whose sshd asks PAM, as those of all large distributions do.
    pub(crate) fn accepting(accepted: &PublicKey) -> Self {
        let accepted = vec![accepted.clone()];
        Self {
            host_key: key::fresh(),
            accepted,
            lines: vec!["UsePAM yes".to_owned()],
            setup: String::new(),
            has_disk: false,
        }
    }

    /// Adds a user with this login shell and a home of their own; `setup` is done next, in that home.
    pub(crate) fn user(&mut self, name: &str, shell: &str, setup: &str) {
        self.entry(&format!("user {name} {shell}"), name, setup);
    }

    /// Adds a user as [`Self::user`] does, with these fields of shadow(5), from the password on.
    pub(crate) fn user_with(&mut self, name: &str, shell: &str, shadow: &str, setup: &str) {
        self.entry(&format!("user {name} {shell} '{shadow}'"), name, setup);
    }

    fn entry(&mut self, command: &str, name: &str, setup: &str) {
        writeln!(self.setup, "{command}\ncd /home/{name}\n{setup}\ncd /").unwrap();
    }

    /// Adds lines of configuration for one user.
    pub(crate) fn only_for(&mut self, user: &str, lines: &[&str]) {
        self.lines.push(format!("Match User {user}\n  {}", lines.join("\n  ")));
    }
}

/// A running machine; dropping it ends it and all that runs there.
pub(crate) struct Machine {
    address: SocketAddr,
    host_key: PublicKey,
    folder: tempfile::TempDir,
    daemon: Daemon,
}

impl Machine {
    /// Starts a machine; its sshd listens when this returns. `None`, said aloud, where this platform lets us make none.
    ///
    /// It lives at most as long as the thread that starts it.
    pub(crate) fn start(plan: &Plan) -> Option<Self> {
        if !is_possible() {
            skip::skipped("no mount namespace of one's own here; root has them, and users with subordinate ids");
            return None;
        }
        let (folder, address) = (tempfile::tempdir().unwrap(), loopback::free(1)[0]);
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        key::write(&plan.host_key, &folder.path().join("host_key"));
        write("authorized_keys", &plan.accepted.iter().map(|key| key.to_openssh().unwrap() + "\n").collect::<String>());
        write("sshd_config", &configuration(plan, address));
        write("setup.sh", &plan.setup);
        write("machine.sh", include_str!("machine.sh"));
        if plan.has_disk {
            std::fs::create_dir(folder.path().join("disk")).unwrap();
        }
        let daemon = Daemon::spawn(machine(folder.path()), 1);
        Some(Self { address, host_key: plan.host_key.public_key().clone(), folder, daemon })
    }

    /// Ends all that runs there, and starts it anew: what was on its disk is there again, and nothing else.
    pub(crate) fn restart(&mut self) {
        self.daemon.stop();
        self.daemon = Daemon::spawn(machine(self.folder.path()), 1);
    }

    /// Its disk as seen from outside, where it has one.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Where its sshd listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who it proves to be.
    pub(crate) fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// What its sshd has logged so far.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }
}

/// What becomes the sshd of the machine that `folder` describes.
fn machine(folder: &Path) -> Command {
    let mut command = namespaces();
    command.arg("/bin/sh").arg(folder.join("machine.sh")).arg(folder).arg(sshd::program());
    command
}

/// Runs what is added to it in namespaces of its own, and kills it when the test dies, however that comes about.
fn namespaces() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.arg("--");
    command
}

/// Whether this platform gives us such namespaces.
fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let mut command = namespaces();
        command.args(["mount", "-t", "tmpfs", "machine", "/run"]);
        command.output().is_ok_and(|output| output.status.success())
    })
}

fn configuration(plan: &Plan, address: SocketAddr) -> String {
    let mut lines = vec![
        format!("ListenAddress {address}"),
        "HostKey /run/host_key".to_owned(),
        "AuthorizedKeysFile /run/machine/authorized_keys".to_owned(),
        "PidFile none".to_owned(),
        // To an ordinary user's namespace the real root's folders are nobody's.
        "StrictModes no".to_owned(),
        "UseDNS no".to_owned(),
        "PermitRootLogin prohibit-password".to_owned(),
        "LogLevel VERBOSE".to_owned(),
    ];
    lines.extend(sshd::without_penalties());
    lines.extend(plan.lines.iter().cloned());
    lines.join("\n") + "\n"
}
