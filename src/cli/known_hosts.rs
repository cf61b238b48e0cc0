//! The `known_hosts` files of this machine, which `--host-key strict` believes.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::access::variable;
use super::exit::Fail;
use crate::domain::job::{HostKeyPolicy, Job};
use crate::domain::known_hosts::KnownHosts;
use crate::engine::records::Runs;
use crate::engine::trust::Trust;
use crate::port::Store;

/// The longest file that is read: a hundred thousand hosts with a key each.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// How the hosts of `job` come to be trusted: by the pins of the store, and as the job's policy says.
///
/// # Errors
/// Where `known_hosts` is needed and cannot be read.
pub fn trust<S: Store>(job: &Job, runs: &Runs<S>) -> Result<Trust<S>, Fail> {
    let policy = job.login.host_key;
    let known_hosts = if policy == HostKeyPolicy::Strict { of_this_machine()? } else { KnownHosts::default() };
    Ok(Trust::new(runs.clone(), policy, Arc::new(known_hosts)))
}

/// What the user's file and the machine's say. One that is not there says nothing; any other fault is one.
fn of_this_machine() -> Result<KnownHosts, Fail> {
    let user = variable("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"));
    let mut all = KnownHosts::default();
    for path in user.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]) {
        let name = path.display().to_string();
        match std::fs::File::open(&path) {
            Ok(file) => all.extend(parse(&name, &read(&name, file)?)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&name, &error)),
        }
    }
    Ok(all)
}

/// Reads a file of host keys; `-` is standard input.
///
/// # Errors
/// Where it cannot be read, or a line of it cannot.
pub fn load(path: &Path) -> Result<KnownHosts, Fail> {
    if path == Path::new("-") {
        let name = "standard input";
        return parse(name, &read(name, io::stdin().lock())?);
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| unreadable(&name, &error))?;
    parse(&name, &read(&name, file)?)
}

fn read(name: &str, from: impl io::Read) -> Result<String, Fail> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Fail::usage(format!("`{name}` has more than {} MiB of host keys", MAX_BYTES / 1024 / 1024)));
    }
    // Comments may be in any encoding; a key or name is ASCII, and what is none of these will not match.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(name: &str, text: &str) -> Result<KnownHosts, Fail> {
    KnownHosts::parse(text).map_err(|error| {
        Fail::usage(format!("`{name}`: {error}"))
            .hint("mend or remove the line: what it was meant to say about a host is not known")
    })
}

fn unreadable(name: &str, error: &io::Error) -> Fail {
    Fail::usage(format!("cannot read the host keys in `{name}`: {error}"))
}
