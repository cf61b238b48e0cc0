//! Flags that change a job's settings, the same for every command that connects.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::Args;

use crate::domain::authority::Authority;
use crate::domain::job::settings::{Settings, Sourced};
use crate::domain::job::{Hop, HostKeyPolicy, Job, Mode, Sudo, User, read};
use crate::domain::location::Location;
use crate::domain::quantity::{Amount, Span};
use crate::domain::run::Target;

/// How to log in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Login")]
pub struct Login {
    /// Login user, also where the inventory names another; `user@` of `-w` comes first
    #[arg(short, long, value_parser = |text: &str| read::word(text, read::login))]
    pub user: Option<String>,
    /// Private key, or `agent` for all that the SSH agent holds; repeat to try several
    #[arg(short, long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// SSH port of hosts of which neither the inventory nor `-w` names one
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Hosts to go through, in order
    #[arg(short = 'J', long, value_name = "[USER@]HOST[:PORT]", value_delimiter = ',', value_parser = hop)]
    pub jump: Vec<Hop>,
    /// TCP, SSH handshake and authentication together
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| read::word(text, read::duration))]
    pub connect_timeout: Option<Span>,
    /// How a host key comes to be trusted
    #[arg(long, value_name = "pinned|strict|ca|off", value_parser = policy)]
    pub host_key: Option<HostKeyPolicy>,
    /// Authority whose host certificates `--host-key ca` believes: its public key, or a file; repeat for several
    #[arg(long, value_name = "FILE", value_parser = authority)]
    pub host_ca: Vec<Authority>,
}

/// How to run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Execution")]
pub struct Execution {
    /// How many hosts at a time: N or N%
    #[arg(short = 'f', long, value_name = "N|N%", value_parser = |text: &str| read::word(text, read::positive_amount))]
    pub max_concurrency: Option<Amount>,
    /// How many hosts may fail before no more are started: N or N%
    #[arg(long, value_name = "N|N%")]
    pub max_errors: Option<Amount>,
    /// Longest time that the script may run on one host
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| read::word(text, read::duration))]
    pub timeout: Option<Span>,
    /// Start and return; the job outlives the connection
    #[arg(short, long)]
    pub detach: bool,
    /// Become this user on the host [default: root]
    #[arg(long, value_name = "USER", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = whom)]
    pub sudo: Option<Sudo>,
    /// Set a variable in the script's environment; repeat for several
    #[arg(short, long, value_name = "K=V", value_parser = variable)]
    pub env: Vec<(String, String)>,
}

impl Login {
    /// What these flags say.
    pub fn settings(&self) -> Settings {
        let keys = self.identity.iter().map(|path| location(path.as_os_str())).collect::<Vec<_>>();
        Settings {
            user: self.user.clone().map(|user| Sourced::flag("--user", User::Name(user))),
            key: (!keys.is_empty()).then(|| Sourced::flag("--identity", keys)),
            port: self.port.map(|port| Sourced::flag("--port", port)),
            jump: (!self.jump.is_empty()).then(|| Sourced::flag("--jump", self.jump.clone())),
            connect_timeout: self.connect_timeout.map(|span| Sourced::flag("--connect-timeout", span)),
            host_key: self.host_key.map(|policy| Sourced::flag("--host-key", policy)),
            host_ca: (!self.host_ca.is_empty()).then(|| Sourced::flag("--host-ca", self.host_ca.clone())),
            ..Settings::default()
        }
    }

    /// Has `job` log in as these flags say to all of `targets`, which were found for it before: of what is a host's own
    /// nobody knows that any more.
    pub fn change(&self, job: &mut Job, targets: &mut [Target]) {
        let Settings { user, key, port, jump, connect_timeout, host_key, host_ca, .. } = self.settings();
        let login = &mut job.login;
        if let Some(User::Name(user)) = user.map(|user| user.value) {
            for target in targets.iter_mut() {
                target.user.clone_from(&user);
            }
            login.user = User::Name(user);
        }
        if let Some(keys) = key {
            for target in targets.iter_mut() {
                target.keys.clear();
            }
            login.keys = keys.value;
        }
        if let Some(port) = port {
            for target in targets.iter_mut() {
                target.port = port.value;
            }
            login.port = port.value;
        }
        if let Some(jump) = jump {
            for target in targets.iter_mut() {
                target.jump = None;
            }
            login.jump = jump.value;
        }
        login.connect_timeout = connect_timeout.map_or(login.connect_timeout, |span| span.value);
        login.host_key = host_key.map_or(login.host_key, |policy| policy.value);
        login.host_ca = host_ca.map_or_else(|| std::mem::take(&mut login.host_ca), |authorities| authorities.value);
    }
}

impl Execution {
    /// What these flags say, `--env` excepted.
    pub fn settings(&self) -> Settings {
        let detached = Mode::Detached { unit: false, keep: Span(std::time::Duration::from_hours(7 * 24)) };
        Settings {
            max_concurrency: self.max_concurrency.map(|amount| Sourced::flag("--max-concurrency", amount)),
            max_errors: self.max_errors.map(|amount| Sourced::flag("--max-errors", Some(amount))),
            timeout: self.timeout.map(|span| Sourced::flag("--timeout", span)),
            mode: self.detach.then(|| Sourced::flag("--detach", detached)),
            sudo: self.sudo.clone().map(|sudo| Sourced::flag("--sudo", sudo)),
            ..Settings::default()
        }
    }
}

/// A key as `-i` names it: a file of the folder one stands in, or what a job file's `key` may be.
fn location(text: &OsStr) -> Location {
    let named = text.to_str().and_then(|text| text.parse::<Location>().ok());
    match named {
        Some(Location::File(_)) | None => {
            let path = PathBuf::from(text);
            // The project's folder may be elsewhere; a flag means the folder one stands in.
            Location::File(std::path::absolute(&path).unwrap_or(path))
        }
        Some(other) => other,
    }
}

fn hop(text: &str) -> Result<Hop, String> {
    Hop::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// A file is one of the folder one stands in; the project's may be elsewhere.
fn authority(text: &str) -> Result<Authority, String> {
    let authority = Authority::try_from(text.to_owned()).map_err(|error| error.to_string())?;
    Ok(match authority {
        Authority::File(path) => Authority::File(std::path::absolute(&path).unwrap_or(path)),
        key @ Authority::Key(_) => key,
    })
}

fn policy(text: &str) -> Result<HostKeyPolicy, String> {
    match text {
        "pinned" => Ok(HostKeyPolicy::Pinned),
        "strict" => Ok(HostKeyPolicy::Strict),
        "ca" => Ok(HostKeyPolicy::Ca),
        "off" => Ok(HostKeyPolicy::Off),
        _ => Err("`pinned`, `strict`, `ca` or `off`".to_owned()),
    }
}

/// Whom to become; `true` and `false` as in a job file.
pub fn whom(text: &str) -> Result<Sudo, String> {
    match text {
        "true" => Ok(Sudo::Root),
        "false" => Ok(Sudo::No),
        user => read::word(user, read::sudo),
    }
}

/// `K=V`; the value may hold anything but NUL.
fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; write `NAME=VALUE`"))?;
    read::variable_name(name).map_err(|(why, hint)| format!("{why}; {hint}"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::domain::job::file::JobFile;
    use crate::domain::job::resolve::Layers;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        login: Login,
    }

    #[test]
    fn login_is_changed_where_it_is_said_and_nowhere_else() {
        let text = "targets: { tags: { Role: web } }\nrun: x\nuser: old\nkey: /old\njump: [old-hop]\n";
        let job = Layers::default().resolve(JobFile::parse(text, "job.yaml", "job").unwrap()).unwrap();
        let of = |port| Target {
            instance: "i-1".parse().unwrap(),
            account: String::new(),
            region: String::new(),
            name: None,
            address: Some("10.0.0.1".to_owned()),
            address_kind: None,
            port,
            user: "old".to_owned(),
            jump: Some(Vec::new()),
            keys: vec!["/own".parse().unwrap()],
        };
        let changed = |words: &[&str]| {
            let (mut job, mut targets) = (job.clone(), vec![of(22), of(2222)]);
            Line::parse_from([&["sshjob"], words].concat()).login.change(&mut job, &mut targets);
            (job.login, targets)
        };
        assert_eq!(changed(&[]), (job.login.clone(), vec![of(22), of(2222)]));

        let (login, targets) = changed(&["-u", "new", "-i", "/new", "-p", "23", "-J", "new-hop"]);
        assert_eq!((login.user, login.keys), (User::Name("new".to_owned()), vec!["/new".parse().unwrap()]));
        assert_eq!((login.port, login.jump), (23, vec![hop("new-hop").unwrap()]));
        // Whose port was a host's own nobody knows any more: all are changed, rather than some.
        let new = Target { user: "new".to_owned(), jump: None, keys: Vec::new(), ..of(23) };
        assert_eq!(targets, [new.clone(), new]);

        let (login, targets) = changed(&["--host-key", "off", "--connect-timeout", "7s"]);
        assert_eq!((login.host_key, login.connect_timeout.to_string()), (HostKeyPolicy::Off, "7s".to_owned()));
        assert_eq!(targets, [of(22), of(2222)]);
    }
}
