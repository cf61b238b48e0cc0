//! What a run needs of this machine: its environment, secrets, and limits.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::aws::Aws;
use super::exit::Fail;
use super::known_hosts;
use super::project::Workspace;
use crate::adapter::notify::{Network, Roots};
use crate::adapter::ssh::{Connector, Keyring};
use crate::adapter::store::AnyStore;
use crate::domain::job::{Job, SecretRef};
use crate::engine::access::Access;
use crate::engine::clock::Clock;
use crate::engine::records::Runs;
use crate::engine::worker::Secrets;

/// The longest secret: the environment of a process holds little more.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A variable of the environment, as text.
#[expect(clippy::disallowed_methods, reason = "the command line is where the environment is read")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How the hosts of `job` are reached with the keys in `keyring`, each host trusted as the job says.
///
/// # Errors
/// Where `known_hosts` or an authority is needed and cannot be had.
pub fn access(job: &Job, keyring: Keyring, project: &Path, runs: &Runs<AnyStore>) -> Result<Access<AnyStore>, Fail> {
    let trust = known_hosts::trust(job, project, runs)?;
    Ok(Access { connector: Connector::default(), keyring, trust, clock: Clock::System })
}

/// Resolves the secrets of `job`.
///
/// # Errors
/// Where one cannot be had; the message names it and never shows it.
pub async fn resolve_secrets(job: &Job, workspace: &Workspace) -> Result<Arc<Secrets>, Fail> {
    let mut secrets = Secrets::new();
    for (name, reference) in &job.secrets {
        let found = match reference {
            SecretRef::Ssm(path) => workspace.aws.read_parameter(path).await,
            other => resolve_secret(other, &workspace.root).map_err(Fail::usage),
        };
        let value = found.map_err(|fail| {
            let message = format!("secret `{name}` of job `{}`: {}", job.name, fail.message);
            Fail { message, ..fail }
        })?;
        secrets.insert(name.clone(), value);
    }
    Ok(Arc::new(secrets))
}

/// Finds a secret; files are relative to the project's folder.
///
/// # Errors
/// Where it cannot be had; the message names where it was looked for and never shows it.
pub fn resolve_secret(reference: &SecretRef, project: &Path) -> Result<Zeroizing<String>, String> {
    match reference {
        SecretRef::Env(name) => variable(name).map(Zeroizing::new).ok_or_else(|| format!("`{name}` is not set")),
        SecretRef::File(path) => {
            let path = project.join(path);
            let secret = read_secret(&path).map(Zeroizing::new);
            secret.map_err(|error| format!("cannot read `{}`: {error}", path.display()))
        }
        SecretRef::Ssm(path) => Err(format!("the parameter `{path}`: parameters hold the `secrets` of scripts alone")),
    }
}

/// Tells people over the network, with addresses and passwords found as the secrets of jobs are.
pub fn notifier(
    workspace: &Workspace,
) -> Network<impl Fn(&SecretRef) -> Result<Zeroizing<String>, String> + use<>, Aws> {
    let project = workspace.root.clone();
    let resolve = move |secret: &SecretRef| resolve_secret(secret, &project);
    Network::new(resolve, Roots::default()).publishing(workspace.aws.clone()).through_proxy()
}

/// Reads a secret's file; one line end at its end belongs to the file, not to the secret.
fn read_secret(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(std::io::Error::other(format!("it is longer than {MAX_SECRET_BYTES} bytes")));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Refuses what is understood and not built yet: a run that needs it must not go on as if it did not.
pub fn not_yet(what: &str) -> Fail {
    Fail::usage(format!("{what}: not yet in this version"))
}

/// Refuses a job that needs what this build lacks, before anything of it runs.
///
/// # Errors
/// Naming what it needs.
pub fn refuse_what_is_not_built(job: &Job) -> Result<(), Fail> {
    if cfg!(feature = "aws") || job.notify.as_deref().is_none_or(|notify| notify.sns.is_none()) {
        return Ok(());
    }
    let why = format!("job `{}`: `notify.sns`: this sshjob was built without AWS, and reaches no SNS topic", job.name);
    Err(Fail::usage(why).hint("build it with its default features, or tell people by `webhook`, `slack` or `email`"))
}

/// Who asks, as `user@machine`.
pub fn actor() -> String {
    let user = variable("USER")
        .or_else(|| variable("LOGNAME"))
        .unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", machine.trim())
}

/// Raises the limit of open files to what the system allows: a connection is one, and a thousand are many.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Where that is refused the system's own errors will name the limit.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
