//! The private keys of a run: in files, with their certificates, and held by the SSH agent.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::access::variable;
use super::aws::Aws;
use super::exit::{Exit, Fail};
use super::launch::notice;
use super::output::lines::clean;
use super::passphrase;
use super::project::Workspace;
use crate::adapter::ssh::agent::{Agent, Held};
use crate::adapter::ssh::certificate::Certificate;
use crate::adapter::ssh::key::{self, KeyError, PrivateKey, PublicKey};
use crate::adapter::ssh::{Identities, Identity, Keyring, certificate};
use crate::domain::job::Job;
use crate::domain::location::Location;
use crate::domain::plan::own_keys;
use crate::domain::run::Target;
use crate::engine::clock::Clock;

/// The keys that OpenSSH tries where none is named, in the order in which it does.
const USUAL_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// How often a passphrase is asked for, as ssh does.
const TRIES: u32 = 3;

/// Loads the private keys that `targets` of `job` and the jump hosts on the way need, asking for a passphrase where one
/// needs it and a terminal is there.
///
/// # Errors
/// Where a key cannot be had: nothing has been started then.
pub async fn load_keys(job: &Job, targets: &[Target], workspace: &Workspace) -> Result<Keyring, Fail> {
    load(job, targets, Finder::new(workspace, Locked::Ask)).await
}

/// The same, where nobody is there to be asked for a passphrase.
///
/// # Errors
/// As [`load_keys`]; also where a key needs a passphrase that nobody has said.
pub async fn load_keys_unattended(job: &Job, targets: &[Target], workspace: &Workspace) -> Result<Keyring, Fail> {
    load(job, targets, Finder::new(workspace, Locked::Refuse)).await
}

async fn load(job: &Job, targets: &[Target], mut finder: Finder<'_>) -> Result<Keyring, Fail> {
    let mut wanted = own_keys(job, targets);
    // Where everybody has keys of their own, nobody needs the usual ones to be there.
    let usual = if wanted.remove(&[][..]) { finder.find(&job.login.keys).await? } else { Identities::default() };
    let mut keyring = Keyring::new(usual);
    for keys in wanted {
        keyring.add(keys.to_vec(), finder.find(keys).await?);
    }
    Ok(keyring)
}

/// What to do about a key whose passphrase is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    Ask,
    Refuse,
}

/// What the agent holds, or why there is none.
type Holding = Result<(Agent, Vec<Held>), String>;

/// Identities, and what there is besides that cannot be used.
#[derive(Default, Clone)]
struct Found {
    identities: Vec<Identity>,
    unusable: Vec<String>,
}

impl Found {
    fn add(&mut self, more: Self) {
        self.identities.extend(more.identities);
        self.unusable.extend(more.unusable);
    }
}

impl From<Found> for Identities {
    fn from(found: Found) -> Self {
        Self::from_iter(found.identities).without(found.unusable)
    }
}

/// Finds keys, each once: a passphrase is asked for once, whatever hosts it is for.
struct Finder<'a> {
    project: &'a Path,
    aws: &'a Aws,
    locked: Locked,
    home: Option<PathBuf>,
    found: HashMap<PathBuf, Found>,
    holding: Option<Holding>,
}

impl<'a> Finder<'a> {
    fn new(workspace: &'a Workspace, locked: Locked) -> Self {
        let home = variable("HOME").map(PathBuf::from);
        Self { project: &workspace.root, aws: &workspace.aws, locked, home, found: HashMap::new(), holding: None }
    }

    /// The identities at `keys`, those in files first: they are named, what the agent holds besides is not.
    async fn find(&mut self, keys: &[Location]) -> Result<Identities, Fail> {
        if keys.is_empty() {
            return self.usual().await;
        }
        let (mut found, mut agent) = (Found::default(), false);
        for location in keys {
            match location {
                Location::File(path) => found.add(self.named(&self.path(path)).await?),
                Location::S3 { bucket, key } => found.add(self.in_bucket(bucket, key).await?),
                Location::Agent => agent = true,
            }
        }
        if agent {
            let (agent, held) = self.holding().await.clone().map_err(|why| no_agent(&why))?;
            if held.is_empty() {
                return Err(no_agent("it holds no keys that can be used, or is locked")
                    .hint("`ssh-add -l` shows what it holds, `ssh-add FILE` adds a key"));
            }
            add_rest(&mut found.identities, &agent, held);
        }
        Ok(found.into())
    }

    /// The identities where none is named, as OpenSSH has them: what the agent holds, the usual files' keys first; then
    /// what is in the usual files alone.
    async fn usual(&mut self) -> Result<Identities, Fail> {
        let folder = self.home.as_ref().map(|home| home.join(".ssh"));
        let files = folder.iter().flat_map(|folder| USUAL_KEYS.map(|name| folder.join(name)));
        let files: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
        let (agent, held) = match self.holding().await.clone() {
            Ok((agent, held)) => (Some(agent), held),
            Err(why) => {
                tracing::info!("no SSH agent: {why}");
                (None, Vec::new())
            }
        };
        let (mut found, mut alone) = (Found::default(), Found::default());
        for path in files {
            match (key::public_half(&path), held.is_empty()) {
                (Some(public), _) if holds(&held, &public) => found.add(self.named(&path).await?),
                (_, false) if is_locked(&path) => {
                    found.unusable.push(format!("`{}` has a passphrase and was not tried", path.display()));
                }
                _ => alone.add(self.named(&path).await?),
            }
        }
        if let Some(agent) = agent {
            add_rest(&mut found.identities, &agent, held);
        }
        found.add(alone);
        if !found.identities.is_empty() {
            return Ok(found.into());
        }
        let folder = folder.map_or_else(|| "~/.ssh (HOME is not set)".to_owned(), |it| it.display().to_string());
        let agent = match self.holding().await {
            Ok(_) => "; the SSH agent holds none, or is locked".to_owned(),
            Err(_) if variable("SSH_AUTH_SOCK").is_none() => String::new(),
            Err(why) => format!("; {why}"),
        };
        Err(Fail::usage(format!("no private key is named, and there is none in `{folder}`{agent}"))
            .hint("name one: `-i FILE`, or `key:` in the job or in sshjob.yaml"))
    }

    /// The key in the file `path`: from the file, or by the agent where it is locked up there and not here.
    async fn named(&mut self, path: &Path) -> Result<Found, Fail> {
        if let Some(found) = self.found.get(path) {
            return Ok(found.clone());
        }
        let found = match key::load(path, None) {
            Ok(key) => certified(path, key),
            Err(error) => match self.by_agent(path, &error).await {
                Some(found) => found,
                None if matches!(error, KeyError::Encrypted { .. }) => certified(path, unlock(path, self.locked)?),
                None => return Err(refuse_key(&error)),
            },
        };
        self.found.insert(path.to_owned(), found.clone());
        Ok(found)
    }

    /// The key that is the object `s3://bucket/key`.
    async fn in_bucket(&self, bucket: &str, key: &str) -> Result<Found, Fail> {
        let place = format!("s3://{bucket}/{key}");
        let bytes = self.aws.read_key(bucket, key).await?;
        let passphrase = variable("SSHJOB_PASSPHRASE").map(Zeroizing::new);
        let key = key::parse(&place, &bytes, passphrase.as_ref()).map_err(|error| refuse_key(&error))?;
        tracing::info!(key = %place, "loaded");
        Ok(Found { identities: vec![key.into()], unusable: Vec::new() })
    }

    /// What the agent holds of the key whose private half cannot be had from the file `path`.
    async fn by_agent(&mut self, path: &Path, error: &KeyError) -> Option<Found> {
        let elsewhere = match error {
            KeyError::Encrypted { .. } | KeyError::PublicKey { .. } => true,
            KeyError::Unreadable { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        };
        let public = key::public_half(path).filter(|_| elsewhere)?;
        let (agent, held) = self.holding().await.clone().ok()?;
        let mut held: Vec<Held> = held.into_iter().filter(|held| is_of(held, &public)).collect();
        if held.is_empty() {
            return None;
        }
        tracing::info!(key = %path.display(), "held by the SSH agent");
        // As ssh does: what an authority says first.
        held.sort_by_key(|held| matches!(held, Held::PublicKey { .. }));
        // A certificate lies beside the private key, also where the public one is named.
        let private =
            if path.extension().is_some_and(|it| it == "pub") { path.with_extension("") } else { path.into() };
        let (mut certificate, unusable) = certificate(&private, &public);
        let identity =
            |held| Identity::Agent { agent: agent.clone(), held: Box::new(held), certificate: certificate.take() };
        Some(Found { identities: held.into_iter().map(identity).collect(), unusable })
    }

    async fn holding(&mut self) -> &Holding {
        match self.holding {
            Some(ref holding) => holding,
            None => self.holding.insert(ask_agent().await),
        }
    }

    fn path(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => self.project.join(path),
        }
    }
}

/// A key in memory, with the certificate beside its file.
fn certified(path: &Path, key: PrivateKey) -> Found {
    tracing::info!(key = %path.display(), "loaded");
    let (certificate, unusable) = certificate(path, key.public_key());
    Found { identities: vec![Identity::Key { key: key.into(), certificate }], unusable }
}

/// The certificate beside the file of `key`, or why there is one that is not used.
fn certificate(path: &Path, key: &PublicKey) -> (Option<Box<Certificate>>, Vec<String>) {
    let path = certificate::beside(path);
    match certificate::load(&path, key, Clock::System.now()) {
        Ok(None) => (None, Vec::new()),
        Ok(Some(found)) => {
            tracing::info!(certificate = %path.display(), "loaded");
            (Some(Box::new(found)), Vec::new())
        }
        Err(error) => {
            tracing::info!("{error}; the key is tried without it");
            (None, vec![error.to_string()])
        }
    }
}

async fn ask_agent() -> Holding {
    let socket = variable("SSH_AUTH_SOCK").ok_or("SSH_AUTH_SOCK is not set, so there is none")?;
    let agent = Agent::at(socket.into());
    let held = agent.list().await.map_err(|error| error.to_string())?;
    tracing::info!(keys = held.len(), "the SSH agent answers");
    Ok((agent, held))
}

fn no_agent(why: &str) -> Fail {
    Fail::usage(format!("the key `agent`: the SSH agent cannot be used: {why}"))
        .hint("start one with `eval $(ssh-agent)` and add a key with `ssh-add FILE`, or name a key's file")
}

/// Adds what the agent holds besides the keys that are named.
fn add_rest(identities: &mut Vec<Identity>, agent: &Agent, held: Vec<Held>) {
    let named: Vec<_> = identities.iter().map(Identity::public_key).collect();
    let rest = held.into_iter().filter(|held| {
        let is_named = |named: &PublicKey| named.key_data() == held.public_key().key_data();
        matches!(held, Held::Certificate { .. }) || !named.iter().any(is_named)
    });
    let rest = rest.map(|held| Identity::Agent { agent: agent.clone(), held: Box::new(held), certificate: None });
    identities.extend(rest.collect::<Vec<_>>());
}

fn holds(held: &[Held], public: &PublicKey) -> bool {
    held.iter().any(|held| is_of(held, public))
}

fn is_of(held: &Held, public: &PublicKey) -> bool {
    held.public_key().key_data() == public.key_data()
}

/// Whether the key in the file `path` cannot be had without asking.
fn is_locked(path: &Path) -> bool {
    variable("SSHJOB_PASSPHRASE").is_none() && matches!(key::load(path, None), Err(KeyError::Encrypted { .. }))
}

/// Loads the key in the file `path` with its passphrase: from the environment, or from whoever sits there.
fn unlock(path: &Path, locked: Locked) -> Result<PrivateKey, Fail> {
    if let Some(passphrase) = variable("SSHJOB_PASSPHRASE").map(Zeroizing::new) {
        return key::load(path, Some(&passphrase)).map_err(|error| refuse_key(&error));
    }
    let terminal = if locked == Locked::Ask { passphrase::terminal() } else { None };
    let Some(terminal) = terminal else {
        let nobody =
            if locked == Locked::Ask { "there is no terminal to ask for it" } else { "a scheduler asks nobody" };
        let message = format!("the key `{}` has a passphrase, and {nobody}", path.display());
        return Err(Fail::usage(message).hint("set SSHJOB_PASSPHRASE, or add the key to an SSH agent: `ssh-add`"));
    };
    let prompt = format!("Passphrase for {}: ", clean(&path.display().to_string()));
    let mut tries = 0;
    loop {
        tries += 1;
        let passphrase = passphrase::ask(&terminal, &prompt).map_err(|error| match error.kind() {
            ErrorKind::Interrupted => Fail::new(Exit::Interrupted, "interrupted; nothing was started"),
            ErrorKind::UnexpectedEof => Fail::usage(format!("no passphrase was given for `{}`", path.display())),
            _ => Fail::usage(format!("cannot read a passphrase: {error}")),
        })?;
        match key::load(path, Some(&passphrase)) {
            Err(error @ KeyError::WrongPassphrase { .. }) if tries < TRIES => notice(&format!("{error}; try again")),
            loaded => return loaded.map_err(|error| refuse_key(&error)),
        }
    }
}

fn refuse_key(error: &KeyError) -> Fail {
    let fail = Fail::usage(error.to_string());
    match error.hint() {
        Some(hint) => fail.hint(hint),
        None => fail,
    }
}
