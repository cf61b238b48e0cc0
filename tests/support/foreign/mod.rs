//! SSH servers that are not OpenSSH's, on loopback addresses, run as whoever runs the tests.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use russh::keys::PublicKey;
use rustix::process::geteuid;

use super::{key, loopback, skip};

/// A running server; dropping it ends it and its connections.
pub(crate) struct Foreign {
    address: SocketAddr,
    children: Arc<Mutex<Vec<Child>>>,
    closed: Arc<AtomicBool>,
    folder: tempfile::TempDir,
}

impl Foreign {
    /// A server in Python, `tests/support/foreign/<name>_server.py`.
    pub(crate) fn python(name: &str, accepted: &PublicKey) -> Self {
        let server = Self::new(accepted);
        let (ip, port) = (server.address.ip().to_string(), server.address.port().to_string());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/foreign");
        // Debian's own: the packages are for no other.
        let mut child = Command::new("/usr/bin/python3")
            .args(["-W", "ignore"])
            .arg(folder.join(format!("{name}_server.py")))
            .args([&ip, &port])
            .args([server.path("host_key"), server.path("home/.ssh/authorized_keys")])
            .env("HOME", server.path("home"))
            .current_dir(server.path("home"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("`python3` is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        server.children.lock().unwrap().push(child);
        assert_eq!(line, "listening\n", "{name} starts: run `tests/run`, or install `python3-{name}`");
        server
    }

    /// Dropbear.
    pub(crate) fn dropbear(accepted: &PublicKey) -> Option<Self> {
        let server = Self::new(accepted);
        let host_key = server.path("dropbear_host_key").display().to_string();
        made(Command::new("dropbearkey").args(["-t", "ed25519", "-f", &host_key]));
        server.at_home(&["dropbear", "-i", "-s", "-r", &host_key])
    }

    /// `TinySSH`, which has no more algorithms than it needs. None for ordinary users: it must become somebody.
    pub(crate) fn tinyssh(accepted: &PublicKey) -> Option<Self> {
        if !geteuid().is_root() {
            skip::skipped("TinySSH lets people in as root only");
            return None;
        }
        let server = Self::new(accepted);
        let keys = server.path("tinyssh_keys").display().to_string();
        made(Command::new("tinysshd-makekey").args(["-q", &keys]));
        server.at_home(&["tinysshd", "-o", &keys])
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn new(accepted: &PublicKey) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ssh = folder.path().join("home/.ssh");
        std::fs::create_dir_all(&ssh).unwrap();
        key::write(&key::fresh(), &folder.path().join("host_key"));
        std::fs::write(ssh.join("authorized_keys"), accepted.to_openssh().unwrap() + "\n").unwrap();
        Self { address: loopback::free(1)[0], children: Arc::default(), closed: Arc::default(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts `server` for each connection, as inetd does, with a home of its own where the user's is: these servers
    /// look for keys nowhere else. None where this machine lets nobody mount.
    fn at_home(self, server: &[&str]) -> Option<Self> {
        let mount = ["sh", "-c", r#"mount --bind "$0" "$1" && cd / && shift && exec "$@""#];
        let enclosed = |server: &[&str]| {
            let mut command = Command::new("unshare");
            command.arg("--mount");
            if !geteuid().is_root() {
                command.args(["--user", "--map-current-user", "--keep-caps"]);
            }
            command.args(mount).arg(self.path("home")).arg(home()).args(server);
            command
        };
        if !enclosed(&["true"]).output().expect("`unshare` is installed").status.success() {
            skip::skipped("nobody may mount on this machine");
            return None;
        }
        let listener = TcpListener::bind(self.address).unwrap();
        let mut command = enclosed(server);
        // Servers are not on an ordinary user's path.
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        let (children, closed) = (Arc::clone(&self.children), Arc::clone(&self.closed));
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let input = OwnedFd::from(connection);
                let output = input.try_clone().unwrap();
                let child = command.stdin(input).stdout(output).stderr(Stdio::null()).spawn().unwrap();
                children.lock().unwrap().push(child);
                // Ours of the connection's ends close here: the server's hanging up is seen.
                command.stdin(Stdio::null()).stdout(Stdio::null());
            }
        });
        Some(self)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(self.address);
        for child in self.children.lock().unwrap().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs what makes a host key.
fn made(command: &mut Command) {
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run `tests/run`"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The home of the user who runs the tests, as servers know it.
fn home() -> String {
    let id = geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let user = fields.find(|fields| fields.get(2) == Some(&id.as_str())).expect("the user has an entry");
    user[5].to_owned()
}
