//! AWS on this machine: MiniStack and moto's server, each on a loopback port of its own and with folders of its own.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::eventually::eventually;
use super::{loopback, skip};

/// An emulator; dropping it ends it and what it started.
pub(crate) struct Emulator {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Emulator {
    /// Starts MiniStack; none where it is not installed, which is said.
    pub(crate) fn ministack() -> Option<Self> {
        Self::start("ministack", |address, command| {
            command.env("BIND_HOST", address.ip().to_string()).env("GATEWAY_PORT", address.port().to_string());
            // Both listen on fixed ports.
            command.env("SFTP_ENABLED", "0").env("IOT_MTLS_ENABLED", "0");
        })
    }

    /// Starts moto's server; none where it is not installed, which is said.
    pub(crate) fn moto() -> Option<Self> {
        Self::start("moto_server", |address, command| {
            command.args(["-H", &address.ip().to_string(), "-p", &address.port().to_string()]);
        })
    }

    fn start(name: &str, set_up: impl Fn(SocketAddr, &mut Command)) -> Option<Self> {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name);
        if !program.exists() {
            skip::skipped(&format!("there is no {name} here; tests/run installs it"));
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = loopback::free(1)[0];
        let mut command = Command::new(program);
        set_up(address, &mut command);
        command.env("STATE_DIR", folder.path().join("state")).env("S3_DATA_DIR", folder.path().join("s3"));
        command.env("HOME", folder.path()).env("TMPDIR", folder.path()).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut process = command.spawn().unwrap();
        eventually("the emulator listens", || {
            assert!(process.try_wait().unwrap().is_none(), "the emulator {name} ended by itself");
            TcpStream::connect(address).is_ok()
        });
        Some(Self { process, address, _folder: folder })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to name as the endpoint.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.process.wait();
    }
}
