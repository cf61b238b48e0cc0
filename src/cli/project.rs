//! The project on disk: `sshjob.yaml`, `jobs/` and `scripts/`, found upwards from where we stand.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::aws::Aws;
use super::context::Global;
use super::exit::{Exit, Fail};
use crate::domain::diagnostic::{Diagnostic, Faults, listed, nearest, quoted, render};
use crate::domain::id::JobName;
use crate::domain::job::file::JobFile;
use crate::domain::job::resolve::{Layers, Overrides};
use crate::domain::job::settings::{Settings, Sourced};
use crate::domain::job::{Job, Source};
use crate::domain::project::Project;
use crate::domain::script::MAX_SCRIPT_BYTES;
use crate::domain::yaml;

/// The name of the project file.
pub const PROJECT_FILE: &str = "sshjob.yaml";

/// The folder of the job files.
pub const JOBS_FOLDER: &str = "jobs";

/// The most job files that a project may have: far more than people can keep in mind.
const MAX_JOBS: usize = 10_000;

/// An opened project: its project file is read, its job files are not yet.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The project's folder; the working directory where there is no project.
    pub root: PathBuf,
    /// What the project file says.
    pub project: Project,
    /// What the environment says, and the flags that every command has.
    pub environment: Settings,
    /// AWS.
    pub aws: Aws,
}

impl Workspace {
    /// Opens the project that `global` names, else the nearest one upwards, else an empty one here.
    ///
    /// # Errors
    /// Everything that is wrong with the project file and the environment.
    pub fn open(global: &Global) -> Result<Self, Fail> {
        let (workspace, wrong) = Self::survey(global)?;
        if wrong.is_empty() { Ok(workspace) } else { Err(refuse(wrong)) }
    }

    /// Opens the project as far as it can be read, with everything that is wrong with it and the environment.
    ///
    /// # Errors
    /// That there is no such folder.
    pub fn survey(global: &Global) -> Result<(Self, Vec<Diagnostic>), Fail> {
        let root = find_root(global)?;
        let mut wrong = Vec::new();
        let path = root.join(PROJECT_FILE);
        let project = if path.exists() {
            let shown = shown(&path);
            read_text(&path, &shown).and_then(|text| Project::parse(&text, &shown))
        } else {
            Ok(Project::default())
        };
        let project = project.unwrap_or_else(|found| {
            wrong.extend(found);
            Project::default()
        });
        let variable = |name: &str| variable(name).filter(|_| !global.deaf);
        let environment = Settings::from_environment(variable).unwrap_or_else(|found| {
            wrong.extend(found);
            Settings::default()
        });
        let regions = (!global.region.is_empty()).then(|| Sourced::flag("--region", global.region.clone()));
        let environment = Settings { regions, ..Settings::default() }.over(environment);
        Ok((Self { root, project, environment, aws: global.aws.clone() }, wrong))
    }

    /// What the layers below a job's own file and above it say.
    pub fn layers(&self, request: Overrides) -> Layers {
        Layers { request, environment: self.environment.clone(), project: self.project.settings.clone() }
    }

    /// The job files of the project, sorted by name.
    ///
    /// # Errors
    /// That the folder cannot be listed.
    pub fn job_paths(&self) -> Result<Vec<PathBuf>, Fail> {
        let folder = self.root.join(JOBS_FOLDER);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Fail::usage(format!("cannot list `{}`: {error}", shown(&folder)))),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Fail::usage(format!("cannot list `{}`: {error}", shown(&folder))))?;
            let path = entry.path();
            let is_job = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            if is_job && !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(path);
            }
            if paths.len() > MAX_JOBS {
                return Err(Fail::usage(format!("`{}` holds more than {MAX_JOBS} job files", shown(&folder))));
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// What to say where a command about jobs finds none at all: most likely it stands elsewhere.
    pub fn emptiness(&self) -> String {
        let folder = self.root.join(JOBS_FOLDER);
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let hint = "`sshjob init` creates a project with a first job; `-C DIR` names the folder of another";
        format!("there is no job in `{}`\nhint: {hint}", folder.display())
    }

    /// Reads the job files at `paths` and checks their scripts: the good ones, and everything that is wrong.
    pub fn read_jobs(&self, paths: &[PathBuf]) -> (Vec<JobFile>, Vec<Diagnostic>) {
        let mut jobs: BTreeMap<JobName, JobFile> = BTreeMap::new();
        let mut wrong = Vec::new();
        for path in paths {
            match self.read_job(path) {
                Ok(job) => match jobs.get(&job.name) {
                    Some(other) => {
                        let message = format!("job `{}` is defined by `{}` already", job.name, other.file);
                        wrong.push(Diagnostic::of_file(&job.file, message).hint("give one of them another `name`"));
                    }
                    None => {
                        jobs.insert(job.name.clone(), job);
                    }
                },
                Err(found) => wrong.extend(found),
            }
        }
        (jobs.into_values().collect(), wrong)
    }

    /// Reads one job file and checks its script.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read_job(&self, path: &Path) -> Result<JobFile, Vec<Diagnostic>> {
        let shown = shown(path);
        let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
        let job = JobFile::parse(&read_text(path, &shown)?, &shown, &stem)?;
        let mut wrong = Vec::new();
        wrong.extend(job.check_script(|script| self.read_script(script)).err());
        let settled = self.layers(Overrides::default()).settle(&job.settings);
        wrong.extend(job.check_retries(&settled).err());
        if self.project.functions.is_some() {
            wrong.extend(job.check_worker(&settled).err());
        }
        if wrong.is_empty() { Ok(job) } else { Err(wrong) }
    }

    /// Finds and reads the job `name`; other job files may be wrong meanwhile.
    ///
    /// # Errors
    /// That there is no such job, or everything that is wrong with it.
    pub fn job(&self, name: &str) -> Result<JobFile, Fail> {
        let paths = self.job_paths()?;
        // Most files are named like their job, so that the others need not be read.
        let (likely, others): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| path.file_stem().is_some_and(|stem| stem == name));
        let mut known = Vec::new();
        for path in likely.iter().chain(&others) {
            match self.read_job(path) {
                Ok(job) if job.name.as_str() == name => return Ok(job),
                Ok(job) => known.push(job.name),
                Err(found) if likely.contains(path) => return Err(refuse(found)),
                Err(_) => {}
            }
        }
        let fail =
            Fail::usage(format!("there is no job {} in `{}`", quoted(name), shown(&self.root.join(JOBS_FOLDER))));
        let names = known.iter().map(JobName::as_str);
        Err(match nearest(name, names.clone()) {
            Some(near) => fail.hint(format!("did you mean `{near}`?")),
            None if known.is_empty() => fail.hint("`sshjob init` creates a project with a first job"),
            None => fail.hint(format!("jobs are {}", listed(names.take(20)))),
        })
    }

    /// The bytes that `job` runs, and where they come from.
    ///
    /// # Errors
    /// Why they cannot be had.
    pub fn script_of(&self, job: &Job) -> Result<Vec<u8>, String> {
        match &job.source {
            Source::Script(path) => {
                self.read_script(path).map_err(|error| format!("script `{}`: {error}", path.display()))
            }
            Source::Run(text) => Ok(text.clone().into_bytes()),
            Source::Command(words) => Ok(words.join("\0").into_bytes()),
        }
    }

    /// Reads a script of the project.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read_script(&self, path: &Path) -> Result<Vec<u8>, String> {
        // One byte more than is delivered, so that the check of the length sees it.
        read_at_most(&self.root.join(path), MAX_SCRIPT_BYTES + 1).map_err(|error| error.to_string())
    }
}

/// The failure that tells all of `found`.
pub fn refuse(found: Vec<Diagnostic>) -> Fail {
    Fail::new(Exit::Usage, render(found))
}

/// A path as people are shown it: relative to where they stand, if it is below.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let below = path.strip_prefix(&here).unwrap_or(path);
    let below = below.strip_prefix(".").unwrap_or(below);
    if below.as_os_str().is_empty() { ".".to_owned() } else { below.display().to_string() }
}

fn find_root(global: &Global) -> Result<PathBuf, Fail> {
    if let Some(root) = &global.project {
        return if root.is_dir() {
            Ok(root.clone())
        } else {
            Err(Fail::usage(format!("`{}` is not a folder", root.display())))
        };
    }
    let here = std::env::current_dir()
        .map_err(|error| Fail::usage(format!("the working directory cannot be read: {error}")))?;
    let is_project = |folder: &&Path| folder.join(PROJECT_FILE).is_file() || folder.join(JOBS_FOLDER).is_dir();
    Ok(here.ancestors().find(is_project).unwrap_or(&here).to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the command line reads the environment, and says so of each value")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read_text(path: &Path, shown: &str) -> Result<String, Vec<Diagnostic>> {
    let bytes = read_at_most(path, yaml::MAX_FILE_BYTES + 1)
        .map_err(|error| vec![Diagnostic::of_file(shown, format!("the file cannot be read: {error}"))])?;
    let faults = Faults::of(shown);
    let text = yaml::text(&bytes, yaml::MAX_FILE_BYTES, &faults).map(str::to_owned);
    faults.settle("", text)
}

/// Reads a regular file, at most `limit` bytes of it: a device or pipe could hold us for ever.
///
/// # Errors
/// Where it cannot be read, or is no regular file.
pub fn read_at_most(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
