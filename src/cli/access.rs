//! What a run needs of this machine: private keys, passphrases and secrets.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::exit::Fail;
use crate::adapter::ssh::key::{self, KeyError, PrivateKey};
use crate::adapter::ssh::{Identities, Identity, Keyring};
use crate::domain::job::{Job, SecretRef};
use crate::domain::location::Location;
use crate::engine::worker::Secrets;

/// The longest secret: the environment of a process holds little more.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The keys that OpenSSH tries where none is named, in the order in which it does.
const USUAL_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// A variable of the environment, as text.
#[expect(clippy::disallowed_methods, reason = "the command line is where the environment is read")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Loads the private keys of `job`, asking for a passphrase where one needs it and a terminal is there.
///
/// # Errors
/// Where a key cannot be had: nothing has been started then.
pub fn load_keys(job: &Job, project: &Path) -> Result<Keyring, Fail> {
    let load = |path: PathBuf| {
        let key = load_key(&path)?;
        tracing::info!(key = %path.display(), "loaded");
        Ok(Identity::from(key))
    };
    let usual: Result<Identities, Fail> = key_files(job, project)?.into_iter().map(load).collect();
    Ok(Keyring::new(usual?))
}

fn key_files(job: &Job, project: &Path) -> Result<Vec<PathBuf>, Fail> {
    let home = variable("HOME").map(PathBuf::from);
    if job.login.keys.is_empty() {
        let home = home.ok_or_else(|| Fail::usage("no private key is named, and HOME is not set"))?;
        let usual = USUAL_KEYS.map(|name| home.join(".ssh").join(name));
        let found: Vec<PathBuf> = usual.into_iter().filter(|path| path.is_file()).collect();
        if found.is_empty() {
            let message = format!("no private key is named, and there is none in `{}`", home.join(".ssh").display());
            return Err(Fail::usage(message).hint("name one: `-i FILE`, or `key:` in the job or in sshjob.yaml"));
        }
        return Ok(found);
    }
    let file = |location: &Location| match location {
        Location::File(path) => match (path.strip_prefix("~"), &home) {
            (Ok(rest), Some(home)) => Ok(home.join(rest)),
            _ => Ok(project.join(path)),
        },
        Location::S3 { .. } => Err(not_yet(&format!("the key `{location}`: keys in S3"))),
        Location::Agent => Err(not_yet("`key: agent`: the SSH agent")),
    };
    job.login.keys.iter().map(file).collect()
}

fn load_key(path: &Path) -> Result<PrivateKey, Fail> {
    match key::load(path, None) {
        Err(KeyError::Encrypted { .. }) => {}
        loaded => return loaded.map_err(|error| refuse_key(&error)),
    }
    if let Some(passphrase) = variable("SSHJOB_PASSPHRASE").map(Zeroizing::new) {
        return key::load(path, Some(&passphrase)).map_err(|error| refuse_key(&error));
    }
    if !std::io::stdin().is_terminal() {
        let message = format!("the key `{}` has a passphrase, and there is no terminal to ask for it", path.display());
        return Err(Fail::usage(message).hint("set SSHJOB_PASSPHRASE"));
    }
    let prompt = format!("Passphrase for {}: ", path.display());
    let passphrase = rpassword::prompt_password(prompt).map(Zeroizing::new);
    let passphrase = passphrase.map_err(|error| Fail::usage(format!("cannot read a passphrase: {error}")))?;
    key::load(path, Some(&passphrase)).map_err(|error| refuse_key(&error))
}

fn refuse_key(error: &KeyError) -> Fail {
    let fail = Fail::usage(error.to_string());
    match error.hint() {
        Some(hint) => fail.hint(hint),
        None => fail,
    }
}

/// Resolves the secrets of `job`.
///
/// # Errors
/// Where one cannot be had; the message names it and never shows it.
pub fn resolve_secrets(job: &Job, project: &Path) -> Result<Arc<Secrets>, Fail> {
    let mut secrets = Secrets::new();
    for (name, reference) in &job.secrets {
        let cannot = |why: String| Fail::usage(format!("secret `{name}` of job `{}`: {why}", job.name));
        let value = match reference {
            SecretRef::Env(variable_name) => {
                variable(variable_name).ok_or_else(|| cannot(format!("`{variable_name}` is not set")))?
            }
            SecretRef::File(path) => {
                let path = project.join(path);
                read_secret(&path).map_err(|error| cannot(format!("cannot read `{}`: {error}", path.display())))?
            }
            SecretRef::Ssm(path) => return Err(not_yet(&format!("secret `{name}`: the parameter `{path}`"))),
        };
        secrets.insert(name.clone(), Zeroizing::new(value));
    }
    Ok(Arc::new(secrets))
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

/// Refuses a job that needs what is not built yet.
///
/// # Errors
/// Naming the first thing that it needs.
pub fn refuse_what_is_not_built(job: &Job) -> Result<(), Fail> {
    use crate::domain::job::{Mode, Sudo};
    let needs = [
        (job.mode != Mode::Attached, "detached mode (`mode: detached`, `-d`)"),
        (job.sudo != Sudo::No, "sudo (`sudo:`, `--sudo`)"),
        (job.notify.is_some(), "notifications (`notify:`)"),
    ];
    match needs.into_iter().find(|(needed, _)| *needed) {
        Some((_, what)) => Err(not_yet(&format!("job `{}` needs {what}", job.name))),
        None => Ok(()),
    }
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
