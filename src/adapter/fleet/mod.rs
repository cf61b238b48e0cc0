//! The embedded fleet of `sshjob demo`: real SSH servers inside this process, on loopback.
//!
//! [`Fleet`] says which hosts there are and where they keep their files, `server` speaks SSH, `process` runs what a host
//! is sent, and `detached` ends what has outlived its channel.

mod detached;
mod folder;
mod process;
mod server;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::domain::instance::{Addresses, Instance, InstanceState};
use folder::Folder;
use process::Running;
use server::Host;

/// Every host listens here, each on a port of its own: no other address is sure to exist on every system.
const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// What is to be seen on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// All is well.
    Sound,
    /// Its disk is dying: some programs cannot be read any more.
    Broken,
    /// Nobody answers at its port.
    Unreachable,
}

/// The hosts: name, role, environment, condition. In `Dev` all that can happen happens; `Prod` must stay untouched.
const HOSTS: [(&str, &str, &str, Condition); 8] = [
    ("web-1", "web", "Dev", Condition::Sound),
    ("web-2", "web", "Dev", Condition::Sound),
    ("web-3", "web", "Dev", Condition::Sound),
    ("web-4", "web", "Dev", Condition::Broken),
    ("db-1", "db", "Dev", Condition::Sound),
    ("cache-1", "cache", "Dev", Condition::Sound),
    ("cache-2", "cache", "Dev", Condition::Unreachable),
    ("prod-db-1", "db", "Prod", Condition::Sound),
];

/// Programs that a broken host cannot read: those that a script asks about the machine, none that receives a script.
const BROKEN_PROGRAMS: [&str; 5] = ["hostname", "uname", "uptime", "df", "free"];

/// Why the fleet did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the embedded fleet: {0}")]
pub struct FleetError(String);

impl FleetError {
    fn new(action: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("cannot {action}: {why}"))
    }
}

/// SSH servers on loopback with one login key, each with its own host key and home directory.
///
/// Dropping it closes the servers, kills what they still run, detached scripts included, and removes their files.
#[derive(Debug)]
pub struct Fleet {
    instances: Vec<Instance>,
    key: PrivateKey,
    closing: CancellationToken,
    running: Arc<Running>,
    /// Ports that are taken but not listened at.
    silent: Vec<TcpSocket>,
    // Dropped last: the files go when nobody uses them any more.
    folder: Folder,
}

impl Fleet {
    /// Starts the servers on random ports of 127.0.0.1, with a fresh login key.
    ///
    /// # Errors
    /// [`FleetError`] when a temporary directory, a port or randomness is not to be had.
    pub async fn start() -> Result<Self, FleetError> {
        let folder = Folder::create().map_err(|error| FleetError::new("create a temporary directory", error))?;
        let mut fleet = Self {
            instances: Vec::with_capacity(HOSTS.len()),
            key: fresh_key()?,
            closing: CancellationToken::new(),
            running: Arc::default(),
            silent: Vec::new(),
            folder,
        };
        let text = fleet.key.to_openssh(LineEnding::LF).map_err(|error| FleetError::new("write the key", error))?;
        fleet
            .folder
            .write("id_ed25519", text.as_bytes(), 0o600)
            .map_err(|error| FleetError::new("write the key", error))?;
        for (name, role, environment, condition) in HOSTS {
            let port = fleet.start_host(name, condition).await?;
            fleet.instances.push(instance(name, role, environment, port)?);
        }
        Ok(fleet)
    }

    /// The hosts as their inventory knows them, in the order of the inventory.
    pub fn instances(&self) -> Vec<Instance> {
        self.instances.clone()
    }

    /// The hosts as an inventory file.
    pub fn inventory_yaml(&self) -> String {
        let mut yaml = String::from("instances:\n");
        for instance in &self.instances {
            let tags: Vec<_> = instance.tags.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(
                yaml,
                "  - {{ id: {}, address: {ADDRESS}, port: {}, tags: {{ {} }} }}",
                instance.id,
                instance.port.unwrap_or_default(),
                tags.join(", "),
            );
        }
        yaml
    }

    /// The private key that every host accepts, as a file that only its owner may read.
    pub fn key_path(&self) -> PathBuf {
        self.root().join("id_ed25519")
    }

    /// The private key that every host accepts.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The folder that holds the key and the hosts' files; it goes with the fleet.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The home directory of a host.
    pub fn home(&self, host: &str) -> PathBuf {
        self.root().join("hosts").join(host).join("home")
    }

    /// Starts one host and returns its port.
    async fn start_host(&mut self, name: &str, condition: Condition) -> Result<u16, FleetError> {
        let cannot = |error: std::io::Error| FleetError::new(&format!("start `{name}`"), error);
        if condition == Condition::Unreachable {
            let socket = TcpSocket::new_v4().map_err(cannot)?;
            socket.bind(SocketAddr::from((ADDRESS, 0))).map_err(cannot)?;
            let port = socket.local_addr().map_err(cannot)?.port();
            self.silent.push(socket);
            return Ok(port);
        }
        let home = format!("hosts/{name}/home");
        let programs = format!("hosts/{name}/bin");
        self.folder.create_folder(&home).map_err(cannot)?;
        self.folder.create_folder(&programs).map_err(cannot)?;
        for (program, text) in programs_of(name, condition) {
            self.folder.write(&format!("{programs}/{program}"), text.as_bytes(), 0o700).map_err(cannot)?;
        }
        let listener = TcpListener::bind((ADDRESS, 0)).await.map_err(cannot)?;
        let port = listener.local_addr().map_err(cannot)?.port();
        let host = Host {
            home: self.root().join(home),
            programs: self.root().join(programs),
            accepted: self.key.public_key().clone(),
            running: Arc::clone(&self.running),
        };
        tokio::spawn(server::serve(listener, host, fresh_key()?, self.closing.clone()));
        Ok(port)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.closing.cancel();
        self.running.kill_all();
        for (name, ..) in HOSTS {
            detached::kill_all(&self.home(name));
        }
    }
}

/// Makes a private Ed25519 key of the system's randomness.
fn fresh_key() -> Result<PrivateKey, FleetError> {
    let mut seed = zeroize::Zeroizing::new([0_u8; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| FleetError::new("make a key", error))?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// The programs that a host has before the system's own: all hosts share one system, so each says its own name.
fn programs_of(name: &str, condition: Condition) -> Vec<(&'static str, String)> {
    match condition {
        Condition::Broken => BROKEN_PROGRAMS
            .into_iter()
            // 126 is what a shell says of a program that it finds and cannot execute.
            .map(|it| (it, format!("#!/bin/sh\necho '{it}: cannot execute: Input/output error' >&2\nexit 126\n")))
            .collect(),
        _ => vec![
            ("hostname", format!("#!/bin/sh\necho {name}\n")),
            (
                "uname",
                format!("#!/bin/sh\n[ \"$*\" = -n ] && exec echo {name}\nPATH=/usr/bin:/bin exec uname \"$@\"\n"),
            ),
        ],
    }
}

fn instance(name: &str, role: &str, environment: &str, port: u16) -> Result<Instance, FleetError> {
    let tags = [("Environment", environment), ("Name", name), ("Role", role)];
    Ok(Instance {
        id: name.parse().map_err(|error| FleetError::new("name a host", error))?,
        account: "local".to_owned(),
        region: "local".to_owned(),
        zone: None,
        launched_at: None,
        addresses: Addresses { private: Some(ADDRESS.to_string()), ..Addresses::default() },
        port: Some(port),
        user: None,
        tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
        state: InstanceState::Running,
    })
}
