//! Whom this machine trusts: its `known_hosts` files, and the authorities that a job names.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::access::variable;
use super::exit::Fail;
use crate::domain::authority::{self, Authority};
use crate::domain::job::{HostKeyPolicy, Job};
use crate::domain::known_hosts::{InvalidLine, KnownHosts, PublicKey};
use crate::engine::records::Runs;
use crate::engine::trust::Trust;
use crate::port::Store;

/// The longest file that is read: a hundred thousand hosts with a key each.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// The longest file of authorities, and the most of them.
const MAX_AUTHORITY_BYTES: u64 = 1024 * 1024;
const MAX_AUTHORITIES: usize = 64;

/// How the hosts of `job` come to be trusted: by the pins of the store, and as the job's policy says.
///
/// # Errors
/// Where `known_hosts` or an authority is needed and cannot be had.
pub fn trust<S: Store>(job: &Job, project: &Path, runs: &Runs<S>) -> Result<Trust<S>, Fail> {
    let policy = job.login.host_key;
    let known_hosts = match policy {
        HostKeyPolicy::Off => KnownHosts::default(),
        HostKeyPolicy::Strict => of_this_machine(KnownHosts::parse)?,
        HostKeyPolicy::Pinned | HostKeyPolicy::Ca => of_this_machine(KnownHosts::parse_marked)?,
    };
    let authorities = if policy == HostKeyPolicy::Ca { authorities(job, project)? } else { Vec::new() };
    if policy == HostKeyPolicy::Ca && authorities.is_empty() && !known_hosts.has_authorities() {
        return Err(Fail::usage("`host_key: ca` believes authorities, and none is named").hint(
            "name one: `--host-ca FILE`, `host_ca:` in sshjob.yaml, or a line `@cert-authority` of known_hosts",
        ));
    }
    Ok(Trust::new(runs.clone(), policy, Arc::new(known_hosts), authorities))
}

/// Puts into `job` the keys of its authorities in place of their files: what is run again believes the same.
///
/// # Errors
/// Where a file cannot be read.
pub fn freeze_authorities(job: &mut Job, project: &Path) -> Result<(), Fail> {
    if job.login.host_key == HostKeyPolicy::Ca {
        job.login.host_ca = authorities(job, project)?.into_iter().map(Authority::Key).collect();
    }
    Ok(())
}

fn authorities(job: &Job, project: &Path) -> Result<Vec<PublicKey>, Fail> {
    let mut keys = Vec::new();
    for authority in &job.login.host_ca {
        match authority {
            Authority::Key(key) => keys.push(key.clone()),
            Authority::File(path) => keys.extend(authorities_in(path, project)?),
        }
    }
    keys.sort();
    keys.dedup();
    if keys.len() > MAX_AUTHORITIES {
        return Err(Fail::usage(format!(
            "{} authorities are named; at most {MAX_AUTHORITIES} are allowed",
            keys.len()
        )));
    }
    Ok(keys)
}

/// The files that hold the authorities of `job`.
pub fn authority_files(job: &Job, project: &Path) -> Vec<PathBuf> {
    let files = job.login.host_ca.iter().filter_map(|authority| match authority {
        Authority::File(path) => Some(place_of(path, project)),
        Authority::Key(_) => None,
    });
    if job.login.host_key == HostKeyPolicy::Ca { files.collect() } else { Vec::new() }
}

fn place_of(path: &Path, project: &Path) -> PathBuf {
    let home = variable("HOME").map(PathBuf::from);
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => project.join(path),
    }
}

fn authorities_in(path: &Path, project: &Path) -> Result<Vec<PublicKey>, Fail> {
    let file = place_of(path, project);
    let name = path.display();
    let cannot = |why: &dyn std::fmt::Display| Fail::usage(format!("cannot read the authorities in `{name}`: {why}"));
    let mut text = String::new();
    let opened = std::fs::File::open(&file).map_err(|error| cannot(&error))?;
    opened.take(MAX_AUTHORITY_BYTES + 1).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    if text.len() as u64 > MAX_AUTHORITY_BYTES {
        return Err(cannot(&format!("it has more than {} MiB", MAX_AUTHORITY_BYTES / 1024 / 1024)));
    }
    match authority::parse(&text) {
        Ok(keys) if keys.is_empty() => Err(cannot(&"it holds no key")),
        Ok(keys) => Ok(keys),
        Err((line, error)) => Err(cannot(&format!("line {line}: {error}"))
            .hint("a line is a public key, as `ssh-keygen` writes it; `@cert-authority` lines belong in known_hosts")),
    }
}

/// What the user's file and the machine's say, as `parse` reads them. One that is not there says nothing; any other
/// fault is one.
fn of_this_machine(parse: impl Fn(&str) -> Result<KnownHosts, InvalidLine>) -> Result<KnownHosts, Fail> {
    let user = variable("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"));
    let mut all = KnownHosts::default();
    for path in user.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]) {
        let name = path.display().to_string();
        match std::fs::File::open(&path) {
            Ok(file) => all.extend(parse(&read(&name, file)?).map_err(|error| not_parsed(&name, &error))?),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
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
    KnownHosts::parse(text).map_err(|error| not_parsed(name, &error))
}

fn not_parsed(name: &str, error: &InvalidLine) -> Fail {
    Fail::usage(format!("`{name}`: {error}"))
        .hint("mend or remove the line: what it was meant to say about a host is not known")
}

fn unreadable(name: &str, error: &io::Error) -> Fail {
    Fail::usage(format!("cannot read the host keys in `{name}`: {error}"))
}
