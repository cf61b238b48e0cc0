//! The jobs of a store, as `push` has uploaded them.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::{StreamExt as _, stream};

use super::refusal::{Kind, Refusal};
use crate::domain::authority::Authority;
use crate::domain::diagnostic::{Diagnostic, Faults, chain, render};
use crate::domain::id::JobName;
use crate::domain::job::file::JobFile;
use crate::domain::job::resolve::{Layers, Overrides};
use crate::domain::job::settings::{Settings, Sourced};
use crate::domain::job::{Job, Source};
use crate::domain::layout::{self, Key};
use crate::domain::project::Project;
use crate::domain::quantity::Amount;
use crate::domain::schedule::Calendar;
use crate::domain::script::MAX_SCRIPT_BYTES;
use crate::domain::yaml;
use crate::engine::fire::Scheduled;
use crate::engine::records::Runs;
use crate::engine::worker::pack;
use crate::port::{Object, Scripts, Store, StoreError};

/// The most job files that a store may have: far more than people can keep in mind.
const MAX_JOBS: usize = 10_000;

/// How many objects are read at a time.
const AT_A_TIME: usize = 32;

/// How many names are asked for at a time; what S3 gives at most.
const PAGE: usize = 1000;

/// The jobs and scripts of a store.
#[derive(Debug, Clone)]
pub struct Book<S> {
    runs: Runs<S>,
}

/// The jobs that were read, and what is wrong with the others.
#[derive(Debug, Default)]
pub struct Read {
    /// The jobs, sorted by the names of their files.
    pub jobs: Vec<Job>,
    /// What is wrong: complete errors with places and hints.
    pub wrong: Vec<String>,
}

impl<S: Store> Book<S> {
    /// The jobs and scripts of the store that `runs` are in.
    pub const fn new(runs: Runs<S>) -> Self {
        Self { runs }
    }

    /// Reads every job.
    ///
    /// # Errors
    /// Where the store does not answer, or the project file is wrong: no job is what it should be then.
    pub async fn read(&self) -> Result<Read, Refusal> {
        let project = self.project().await?;
        let keys = self.job_keys().await?;
        let reading = keys.iter().map(|key| self.read_job(key, project.clone(), Overrides::default()));
        let found: Vec<_> = stream::iter(reading).buffered(AT_A_TIME).collect().await;
        let (mut read, mut names) = (Read::default(), BTreeSet::new());
        for (job, key) in found.into_iter().zip(&keys) {
            match job {
                Ok(job) if !names.insert(job.name.clone()) => {
                    read.wrong.push(format!("error: `{key}`: job `{}` is defined by another file already", job.name));
                }
                Ok(job) => read.jobs.push(job),
                Err(refusal) if refusal.kind == Kind::InvalidJob => read.wrong.push(refusal.message),
                // Not even one of them is taken for gone because the store did not answer.
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(read)
    }

    /// Reads the job `name`, with what a request says over it.
    ///
    /// # Errors
    /// Where there is none, or its file is wrong; or the store does not answer.
    pub async fn job(&self, name: &JobName, request: Overrides) -> Result<Job, Refusal> {
        let project = self.project().await?;
        let keys = self.job_keys().await?;
        let is_likely = |key: &&Key| stem(key) == name.as_str();
        let (likely, others): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(is_likely);
        for key in likely.iter().chain(&others) {
            match self.read_job(key, project.clone(), request.clone()).await {
                Ok(job) if job.name == *name => return Ok(job),
                Err(refusal) if refusal.kind != Kind::InvalidJob || likely.contains(key) => return Err(refusal),
                _ => {}
            }
        }
        let message = format!("there is no job `{name}` in the store\nhint: `sshjob push` uploads jobs and scripts");
        Err(Refusal::new(Kind::InvalidJob, message))
    }

    async fn job_keys(&self) -> Result<Vec<Key>, Refusal> {
        let mut keys: Vec<Key> = Vec::new();
        loop {
            let page = self.runs.store().list(layout::JOBS, keys.last(), PAGE).await?;
            let is_last = page.len() < PAGE;
            keys.extend(page);
            if keys.len() > MAX_JOBS {
                let message = format!("there are more than {MAX_JOBS} job files in the store");
                return Err(Refusal::new(Kind::InvalidJob, message));
            }
            if is_last {
                keys.retain(|key| {
                    let extension = Path::new(key.as_str()).extension();
                    extension.is_some_and(|extension| extension == "yaml" || extension == "yml")
                });
                return Ok(keys);
            }
        }
    }

    /// What the project file says, as the lowest layer but one.
    async fn project(&self) -> Result<Settings, Refusal> {
        let key = layout::project();
        let Some(object) = self.file(&key, yaml::MAX_FILE_BYTES).await? else { return Ok(lowest()) };
        let read = text(&object.bytes, &key).and_then(|text| Project::parse(&text, key.as_str()));
        let project = read.map_err(|wrong| Refusal::new(Kind::InvalidJob, render(wrong)))?;
        Ok(project.settings.over(lowest()))
    }

    /// A file of the project that has at most `most` bytes: what is larger is no such file, and never in our memory.
    async fn file(&self, key: &Key, most: usize) -> Result<Option<Object>, Refusal> {
        self.runs.store().get_at_most(key, most).await.map_err(|error| match error {
            StoreError::Damaged { .. } => Refusal::new(Kind::InvalidJob, format!("error: {error}")),
            error @ StoreError::Unavailable { .. } => error.into(),
        })
    }

    async fn read_job(&self, key: &Key, project: Settings, request: Overrides) -> Result<Job, Refusal> {
        let object = self.file(key, yaml::MAX_FILE_BYTES).await?;
        let object = object.ok_or_else(|| Refusal::new(Kind::InvalidJob, format!("error: `{key}` is gone")))?;
        let layers = Layers { request, environment: Settings::default(), project };
        read_job(key, &object.bytes, layers).map_err(|wrong| Refusal::new(Kind::InvalidJob, render(wrong)))
    }

    /// The script of `job`, checked.
    ///
    /// # Errors
    /// Why it cannot be had, or would not run as meant.
    pub async fn script_of(&self, job: &Job) -> Result<Vec<u8>, Refusal> {
        let refuse = |why: String| Refusal::new(Kind::InvalidScript, format!("job `{}`: {why}", job.name));
        let script = match &job.source {
            Source::Script(path) => {
                let key = key_of(path).map_err(&refuse)?;
                let object =
                    self.runs.store().get_at_most(&key, MAX_SCRIPT_BYTES).await.map_err(|error| match error {
                        StoreError::Damaged { why, .. } => refuse(format!("script `{key}`: {why}")),
                        error @ StoreError::Unavailable { .. } => error.into(),
                    })?;
                let missing = "is not in the store\nhint: `sshjob push` uploads jobs and scripts";
                object.ok_or_else(|| refuse(format!("script `{key}` {missing}")))?.bytes
            }
            Source::Run(text) => text.clone().into_bytes(),
            Source::Command(words) => words.join("\0").into_bytes(),
        };
        if script.len() > MAX_SCRIPT_BYTES {
            return Err(refuse(format!(
                "its script has {} bytes; at most {MAX_SCRIPT_BYTES} are allowed",
                script.len()
            )));
        }
        let packed = pack(job, &script.clone().into());
        packed.map_err(|error| refuse(chain(&error)))?;
        Ok(script)
    }
}

impl<S: Store> Scripts for Book<S> {
    async fn script(&self, job: &Job) -> Result<Vec<u8>, String> {
        self.script_of(job).await.map_err(|refusal| refusal.message)
    }
}

impl Read {
    /// The jobs that fire by themselves.
    pub fn scheduled(&mut self) -> Vec<Scheduled> {
        let mut scheduled = Vec::new();
        for job in self.jobs.iter().filter(|job| !job.schedule.expressions.is_empty()) {
            match Calendar::new(&job.name, &job.schedule) {
                Ok(calendar) => scheduled.push(Scheduled { job: job.clone(), calendar }),
                Err(error) => self.wrong.push(format!("error: job `{}`: {error}", job.name)),
            }
        }
        scheduled
    }
}

/// Where nobody says how many tasks may run at a time it is all of them: every worker brings its own machine.
pub fn lowest() -> Settings {
    Settings { max_concurrency: Some(Sourced::by_default(Amount::Percent(100))), ..Settings::default() }
}

/// Reads the job file `bytes`, which is at `key`, as functions do.
///
/// # Errors
/// Everything that is wrong with it; also what would need files that functions do not have.
pub fn read_job(key: &Key, bytes: &[u8], layers: Layers) -> Result<Job, Vec<Diagnostic>> {
    let text = text(bytes, key)?;
    let file = JobFile::parse(&text, key.as_str(), stem(key))?;
    file.check_worker(&layers.settle(&file.settings)).map_err(|wrong| vec![wrong])?;
    let job = layers.resolve(file)?;
    let is_file = |authority: &&Authority| matches!(authority, Authority::File(_));
    if let Some(Authority::File(path)) = job.login.host_ca.iter().find(is_file) {
        let message =
            format!("job `{}`: `host_ca` names the file `{}`, and a function has no files", job.name, path.display());
        let hint = "write the public key itself, as `ssh-ed25519 AAAA…`";
        return Err(vec![Diagnostic::of_file(key.as_str(), message).hint(hint)]);
    }
    Ok(job)
}

/// Where the script at `path` of the project is in the store.
///
/// # Errors
/// That it could not be there.
pub fn key_of(path: &Path) -> Result<Key, String> {
    let key = path.to_str().and_then(Key::parse).filter(|key| key.as_str().starts_with(layout::SCRIPTS));
    key.ok_or_else(|| {
        format!(
            "the script `{}` cannot be in a store: only files below `scripts/` with plain names are",
            path.display()
        )
    })
}

fn stem(key: &Key) -> &str {
    Path::new(key.as_str()).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

fn text(bytes: &[u8], key: &Key) -> Result<String, Vec<Diagnostic>> {
    let faults = Faults::of(key.as_str());
    let text = yaml::text(bytes, yaml::MAX_FILE_BYTES, &faults).map(str::to_owned);
    faults.settle("", text)
}
