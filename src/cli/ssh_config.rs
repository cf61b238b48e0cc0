//! The user's `~/.ssh/config`, for hosts that are named with `-w` and the jump hosts on the way to them.
//!
//! What a flag, the environment, a job or the project says comes first; the file comes before what is built in.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use wildmatch::WildMatch;

use super::access::variable;
use super::exit::Fail;
use super::project::refuse;
use crate::domain::diagnostic::quoted;
use crate::domain::instance::Instance;
use crate::domain::job::settings::{Origin, Settled, Sourced};
use crate::domain::job::{Hop, User};
use crate::domain::location::Location;
use crate::domain::run::Target;
use crate::domain::selector::Host;
use crate::domain::ssh_config::{self, Asked, HostSettings, Proxy};

/// The longest file: far more hosts than anyone keeps by hand.
const MAX_BYTES: u64 = 1024 * 1024;

/// The most files that one `Include` may name.
const MAX_FILES: usize = 256;

/// The most jump hosts on one way: beyond it they lead in a circle.
const MAX_HOPS: usize = 8;

/// What the user's file says.
#[derive(Debug)]
pub struct SshConfig {
    config: ssh_config::SshConfig,
    home: PathBuf,
    local_user: String,
}

impl SshConfig {
    /// Reads the file that `SSHJOB_SSH_CONFIG` names, else `~/.ssh/config`; `None` where there is none, or `none` is
    /// named.
    ///
    /// # Errors
    /// That it cannot be read, that others may write to it, or what is wrong in which line.
    pub fn load() -> Result<Option<Self>, Fail> {
        let Some(home) = variable("HOME").map(PathBuf::from) else { return Ok(None) };
        let named = variable("SSHJOB_SSH_CONFIG").map(PathBuf::from);
        if named.as_deref() == Some(Path::new("none")) {
            return Ok(None);
        }
        let usual = home.join(".ssh/config");
        let path = named.as_ref().unwrap_or(&usual);
        if named.is_none() && !path.exists() {
            return Ok(None);
        }
        let cannot = |why| Fail::usage(why).hint("set SSHJOB_SSH_CONFIG to another file or to `none`");
        let text = read(path).map_err(cannot)?;
        let folder = home.join(".ssh");
        let mut include = |pattern: &str| included(pattern, &home, &folder);
        let config = ssh_config::SshConfig::parse(&path.display().to_string(), &text, &mut include);
        let config = config.map_err(|wrong| refuse(vec![wrong]))?;
        for passed_over in &config.passed_over {
            tracing::info!("{passed_over}");
        }
        let local_user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_default();
        Ok(Some(Self { config, home, local_user }))
    }

    /// Changes `target`, made of the named host `instance`, to what the file says where nothing in `settled` does.
    ///
    /// # Errors
    /// That the file asks for what cannot be done: a `ProxyCommand`, or jump hosts that lead in a circle.
    pub fn apply(&self, target: &mut Target, instance: &Instance, settled: &Settled) -> Result<(), Fail> {
        let Some(typed) = target.address.clone() else { return Ok(()) };
        let said = |origin: &Origin| *origin != Origin::Default;
        let user = instance.user.clone().or_else(|| said(&settled.user.origin).then(|| target.user.clone()));
        let found = self.of(&typed, user.as_deref());
        if user.is_none() {
            target.user = found.user.clone().unwrap_or_else(|| target.user.clone());
        }
        if instance.port.is_none() && !said(&settled.port.origin) {
            target.port = found.port.unwrap_or(target.port);
        }
        if !said(&settled.key.origin) {
            target.keys = self.keys(&found, &typed, target)?;
        }
        let jumps = if said(&settled.jump.origin) { settled.jump.value.clone() } else { hops(&found, &typed)? };
        if !jumps.is_empty() {
            target.jump = Some(self.way(jumps, 0)?);
        }
        target.address = Some(found.host_name.unwrap_or(typed));
        Ok(())
    }

    /// Where a task on the named host `instance` connects to: address and port.
    pub fn place(&self, instance: &Instance, settled: &Settled) -> Option<(String, u16)> {
        let (typed, _) = instance.address(None)?;
        let user = instance.user.as_deref().or(match &settled.user {
            Sourced { origin: Origin::Default, .. } => None,
            Sourced { value: User::Name(user) | User::Tag { default: user, .. }, .. } => Some(user),
        });
        let found = self.of(typed, user);
        let said = Some(settled.port.value).filter(|_| settled.port.origin != Origin::Default);
        let port = instance.port.or(said).or(found.port).unwrap_or(settled.port.value);
        Some((found.host_name.unwrap_or_else(|| typed.to_owned()), port))
    }

    fn of(&self, host: &str, user: Option<&str>) -> HostSettings {
        self.config.of(&Asked { host, user, local_user: &self.local_user })
    }

    /// The way through `hops`, each as the file has it. Before the first come those that lead to it; what the file says
    /// of the way to the others means nothing, for they are reached from the one before.
    fn way(&self, hops: Vec<Hop>, depth: usize) -> Result<Vec<Hop>, Fail> {
        let mut way: Vec<Hop> = Vec::new();
        for (n, hop) in hops.into_iter().enumerate() {
            let found = self.of(&hop.host, hop.user.as_deref());
            if n == 0 {
                let before = self::hops(&found, &hop.host)?;
                if depth + before.len() > MAX_HOPS {
                    let message = format!("the way to the jump host `{hop}` is longer than {MAX_HOPS} hosts");
                    return Err(
                        Fail::usage(message).hint("`ProxyJump` leads in a circle; mend it, or set SSHJOB_SSH_CONFIG")
                    );
                }
                if !before.is_empty() {
                    way = self.way(before, depth + 1)?;
                }
            }
            // A port that was not typed is 22 here; so is one that was, and then the file wins, unlike in ssh.
            let port = if hop.port == 22 { found.port.unwrap_or(22) } else { hop.port };
            let user = hop.user.clone().or_else(|| found.user.clone());
            let host = found.host_name.clone().unwrap_or_else(|| hop.host.clone());
            let mut resolved = Hop { user, host, port, keys: hop.keys };
            if resolved.keys.is_empty() {
                resolved.keys =
                    self.files(&found, &hop.host, &resolved.host, resolved.port, resolved.user.as_deref())?;
            }
            way.push(resolved);
        }
        Ok(way)
    }

    fn keys(&self, found: &HostSettings, typed: &str, target: &Target) -> Result<Vec<Location>, Fail> {
        let host = found.host_name.as_deref().unwrap_or(typed);
        self.files(found, typed, host, target.port, Some(&target.user))
    }

    /// The key files that are there; as in ssh one that is not is passed over.
    fn files(
        &self,
        found: &HostSettings,
        typed: &str,
        host: &str,
        port: u16,
        user: Option<&str>,
    ) -> Result<Vec<Location>, Fail> {
        let token = |letter| match letter {
            'd' => Some(self.home.display().to_string()),
            'h' => Some(host.to_owned()),
            'n' => Some(typed.to_owned()),
            'p' => Some(port.to_string()),
            'r' => user.map(str::to_owned),
            'u' => Some(self.local_user.clone()),
            'i' => Some(rustix::process::getuid().as_raw().to_string()),
            _ => None,
        };
        let mut files = Vec::new();
        for written in found.identity_files.iter().filter(|file| !file.eq_ignore_ascii_case("none")) {
            let path = ssh_config::expand(written, token).map_err(|letter| {
                let message = format!("`IdentityFile {written}` of `{typed}`: `%{letter}` is not understood");
                Fail::usage(message).hint("`%d`, `%h`, `%i`, `%n`, `%p`, `%r` and `%u` are; or name the key with `-i`")
            })?;
            let path = self.home.join(tilde(&path, &self.home));
            if path.exists() || path.with_added_extension("pub").exists() {
                files.push(Location::File(path));
            } else {
                tracing::info!(host = typed, key = %path.display(), "there is no such key");
            }
        }
        Ok(files)
    }
}

/// The jump hosts that the file names on the way to `host`.
fn hops(found: &HostSettings, host: &str) -> Result<Vec<Hop>, Fail> {
    match &found.proxy {
        None | Some(Proxy::NoJump | Proxy::NoCommand) => Ok(Vec::new()),
        Some(Proxy::Jump(hosts)) => Ok(hosts.iter().map(hop).collect()),
        Some(Proxy::Command) => {
            let message =
                format!("the host {} is reached by a `ProxyCommand`, which sshjob does not run", quoted(host));
            Err(Fail::usage(message).hint("name a jump host with `-J` or `ProxyJump`; `-J` comes first"))
        }
    }
}

fn hop(host: &Host) -> Hop {
    Hop { user: host.user.clone(), host: host.host.clone(), port: host.port.unwrap_or(22), keys: Vec::new() }
}

fn tilde(path: &str, home: &Path) -> PathBuf {
    path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| home.join(rest))
}

/// The files that an `Include` names, in order; where there are none it says nothing.
fn included(pattern: &str, home: &Path, folder: &Path) -> Result<Vec<(String, String)>, String> {
    let mut paths = vec![PathBuf::from("/")];
    for part in folder.join(tilde(pattern, home)).components().skip(1) {
        let name = part.as_os_str().to_string_lossy();
        let matching = WildMatch::new(&name);
        let is_wild = name.contains(['*', '?']);
        let mut next = Vec::new();
        for path in paths {
            if !is_wild {
                next.push(path.join(part));
                continue;
            }
            let Ok(entries) = fs::read_dir(&path) else { continue };
            let names = entries.map_while(Result::ok).map(|entry| entry.file_name());
            let mut names: Vec<_> = names.filter(|it| it.to_str().is_some_and(|it| matching.matches(it))).collect();
            names.retain(|it| name.starts_with('.') || !it.as_encoded_bytes().starts_with(b"."));
            names.sort();
            next.extend(names.into_iter().map(|name| path.join(name)));
            if next.len() > MAX_FILES {
                return Err(format!("`Include {pattern}` names more than {MAX_FILES} files"));
            }
        }
        paths = next;
    }
    let there = paths.into_iter().filter(|path| path.exists());
    there.map(|path| Ok((path.display().to_string(), read(&path)?))).collect()
}

/// Reads a file that nobody else may have written: it says as whom we log in, and through whom.
fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |error: io::Error| format!("cannot read `{shown}`: {error}");
    let file = File::open(path).map_err(cannot)?;
    let status = file.metadata().map_err(cannot)?;
    let owner = status.uid();
    if !status.is_file() {
        return Err(format!("cannot read `{shown}`: not a regular file"));
    }
    if owner != 0 && owner != rustix::process::getuid().as_raw() {
        return Err(format!("`{shown}` belongs to the user with the id {owner}, who could have us log in anywhere"));
    }
    if status.mode() & 0o022 != 0 {
        let mode = status.mode() & 0o7777;
        return Err(format!("others can write to `{shown}`: its permissions are {mode:04o}, 0644 is allowed"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("`{shown}` has more than {} KiB", MAX_BYTES / 1024));
    }
    // Comments may be in any encoding; what we use is checked word by word.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
