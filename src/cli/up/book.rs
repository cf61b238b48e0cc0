//! The jobs of a project as a scheduler knows them: of each file its last good version.
//!
//! Files are looked at every few seconds rather than watched: that works alike on every file system, on network mounts
//! and through containers, where no kernel tells of changes that others make; and it survives editors that rename, folders
//! that are replaced and limits on watches. A look costs a `stat` per file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::access::refuse_what_is_not_built;
use crate::cli::context::Global;
use crate::cli::exit::Fail;
use crate::cli::known_hosts::{authority_files, freeze_authorities};
use crate::cli::project::{JOBS_FOLDER, PROJECT_FILE, Workspace, refuse, shown};
use crate::domain::id::JobName;
use crate::domain::job::resolve::Overrides;
use crate::domain::job::{Job, Source};
use crate::domain::schedule::Calendar;
use crate::engine::fire::Scheduled;
use crate::engine::worker::pack;
use crate::port::Scripts;

/// The jobs that fire, and their scripts.
#[derive(Debug, Default)]
pub struct Jobs {
    /// The jobs.
    pub scheduled: Vec<Scheduled>,
    scripts: HashMap<JobName, Arc<[u8]>>,
}

impl Scripts for Arc<Jobs> {
    async fn script(&self, job: &Job) -> Result<Vec<u8>, String> {
        let script = self.scripts.get(&job.name);
        script.map(|bytes| bytes.to_vec()).ok_or_else(|| format!("job `{}` is gone", job.name))
    }
}

/// What a file looks like from outside: its change time, its size and which file it is; none where there is none.
pub type Mark = Option<(i64, i64, u64, u64)>;

/// What the file at `path` looks like now.
pub fn mark(path: &Path) -> Mark {
    let found = fs::metadata(path).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.size(), found.ino()))
}

/// A job that was read and is sound.
#[derive(Debug, Clone)]
struct Entry {
    scheduled: Scheduled,
    script: Arc<[u8]>,
}

/// A job file.
#[derive(Debug, Default)]
struct Page {
    /// What it and the files that it names looked like when they were read.
    read: Vec<Mark>,
    /// What they looked like a look ago.
    seen: Vec<Mark>,
    /// The files that it names: its script, and who vouches for its hosts.
    files: Vec<PathBuf>,
    /// The last good version; none of a job without a schedule.
    good: Option<Entry>,
    /// What is wrong with it now.
    wrong: Option<String>,
    /// Whether it is not known any more who vouches for its hosts: then it does not go on as before.
    is_doubtful: bool,
}

impl Page {
    fn look(&self, path: &Path) -> Vec<Mark> {
        std::iter::once(path).chain(self.files.iter().map(PathBuf::as_path)).map(mark).collect()
    }

    /// Whether the job file was there a look ago.
    fn was_there(&self) -> bool {
        self.seen.first().is_some_and(Option::is_some)
    }

    /// Reads the file; what it looked like before that is what the next look is held against.
    fn read(&mut self, workspace: &Workspace, path: &Path) -> Result<Option<Entry>, Fault> {
        loop {
            self.read = self.look(path);
            self.seen.clone_from(&self.read);
            let (files, entry) = read_job(workspace, path).map_err(Fault::Edit)?;
            if files == self.files {
                return entry;
            }
            // Only now is it known which files to look at: once more, in this order.
            self.files = files;
        }
    }
}

/// What is wrong with a job.
enum Fault {
    /// It goes on as it was before.
    Edit(String),
    /// It is not known who vouches for its hosts, and who did before need not do so now.
    Doubt(String),
}

/// What a look at the files has brought.
#[derive(Debug, Default)]
pub struct News {
    /// Whether the jobs are others now.
    pub changed: bool,
    /// What is wrong that was not wrong before: complete errors, with places and hints.
    pub wrong: Vec<String>,
    /// What happened to jobs, in a few words.
    pub notes: Vec<String>,
    /// The jobs that are none any more; a job whose file is broken stays.
    pub gone: BTreeSet<JobName>,
}

/// The job files of a project.
#[derive(Debug)]
pub struct Book {
    global: Global,
    workspace: Arc<Workspace>,
    project: (Mark, Mark),
    pages: BTreeMap<PathBuf, Page>,
    /// What is wrong with the folder.
    folder: Option<String>,
    /// What is wrong between its files.
    doubles: Vec<String>,
    /// The jobs that have a schedule.
    names: BTreeSet<JobName>,
    jobs: Arc<Jobs>,
}

impl Book {
    /// Reads all that there is.
    pub fn open(global: &Global, workspace: Workspace) -> (Self, News) {
        let project = mark(&workspace.root.join(PROJECT_FILE));
        let mut book = Self {
            global: global.clone(),
            workspace: Arc::new(workspace),
            project: (project, project),
            pages: BTreeMap::new(),
            folder: None,
            doubles: Vec::new(),
            names: BTreeSet::new(),
            jobs: Arc::default(),
        };
        let news = book.look(true);
        (book, news)
    }

    /// The project.
    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
    }

    /// The jobs that fire.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// Whether there is a job of this name that has a schedule.
    pub fn knows(&self, job: &JobName) -> bool {
        self.names.contains(job)
    }

    /// Whether something is wrong with some job.
    pub fn is_faulty(&self) -> bool {
        self.folder.is_some() || !self.doubles.is_empty() || self.pages.values().any(|page| page.wrong.is_some())
    }

    /// Looks at all files, and reads those anew that have changed and then stayed the same from one look to the next: one
    /// that is being written is left alone. `at_once` reads all that have changed.
    pub fn look(&mut self, at_once: bool) -> News {
        let mut news = News::default();
        let anew = self.look_at_project(at_once, &mut news);
        match self.paths() {
            Ok(paths) => {
                self.folder = None;
                self.pages.retain(|path, page| {
                    // An editor may take a file away for a moment.
                    let is_there = paths.binary_search(path).is_ok();
                    let stays = is_there || (!at_once && page.was_there());
                    if !is_there {
                        page.seen.clear();
                    }
                    if !stays && let Some(entry) = &page.good {
                        news.notes.push(format!("job `{}` is gone: it fires no more", entry.scheduled.job.name));
                    }
                    news.changed |= !stays && page.good.is_some();
                    stays
                });
                for path in &paths {
                    self.look_at(path, at_once, anew, &mut news);
                }
            }
            Err(fail) => {
                let told = fail.told();
                if self.folder.as_ref() != Some(&told) {
                    news.wrong.push(told.clone());
                }
                self.folder = Some(told);
            }
        }
        if news.changed {
            self.gather(&mut news);
        }
        news
    }

    /// The job files. A folder that was there and is not says nothing of its jobs: it may be mounted anew, or replaced.
    fn paths(&self) -> Result<Vec<PathBuf>, Fail> {
        let folder = self.workspace.root.join(JOBS_FOLDER);
        if !self.pages.is_empty() && !folder.exists() {
            let hint = "the jobs go on as they were; an empty folder means that there are none";
            return Err(Fail::usage(format!("`{}` is gone", shown(&folder))).hint(hint));
        }
        self.workspace.job_paths()
    }

    /// Reads the project file again where it has changed; tells whether that changes what jobs are.
    fn look_at_project(&mut self, at_once: bool, news: &mut News) -> bool {
        let now = mark(&self.workspace.root.join(PROJECT_FILE));
        let (read, seen) = self.project;
        self.project.1 = now;
        if now == read || (now != seen && !at_once) {
            return false;
        }
        self.project.0 = now;
        match Workspace::open(&self.global) {
            Ok(workspace) => {
                news.notes.push(format!("`{PROJECT_FILE}` was read again"));
                self.workspace = Arc::new(workspace);
                true
            }
            Err(fail) => {
                news.wrong.push(fail.told());
                news.notes.push(format!("`{PROJECT_FILE}` counts as it was before"));
                false
            }
        }
    }

    fn look_at(&mut self, path: &Path, at_once: bool, anew: bool, news: &mut News) {
        let is_new = !self.pages.contains_key(path);
        let page = self.pages.entry(path.to_owned()).or_default();
        let now = page.look(path);
        // What is wrong may have been mended in a file that we do not know of.
        let is_due = anew || page.wrong.is_some() || now != page.read;
        let is_still = now == page.seen;
        page.seen = now;
        if !is_due || (!is_still && !at_once) {
            return;
        }
        let was_doubtful = std::mem::take(&mut page.is_doubtful);
        match page.read(&self.workspace, path) {
            Ok(entry) => {
                let was = std::mem::replace(&mut page.good, entry);
                let name = page.good.as_ref().or(was.as_ref()).map(|entry| &entry.scheduled.job.name);
                let changed = match (&was, &page.good) {
                    (Some(was), Some(is)) => was.scheduled.job != is.scheduled.job || was.script != is.script,
                    (None, None) => false,
                    _ => true,
                };
                if changed
                    && !at_once
                    && let Some(name) = name
                {
                    let what = if is_new || was.is_none() { "is new" } else { "has changed" };
                    let what = if page.good.is_none() { "has no schedule any more" } else { what };
                    news.notes.push(format!("job `{name}` {what}"));
                } else if page.wrong.is_some() {
                    news.notes.push(format!("`{}` is mended", shown(path)));
                }
                page.wrong = None;
                news.changed |= changed || was_doubtful;
            }
            Err(fault) => {
                let (wrong, then) = match fault {
                    Fault::Edit(wrong) => (wrong, "goes on as it was before"),
                    Fault::Doubt(wrong) => {
                        page.is_doubtful = true;
                        (wrong, "fires no more until that is mended")
                    }
                };
                news.changed |= page.is_doubtful != was_doubtful;
                if page.wrong.as_ref() != Some(&wrong) {
                    news.wrong.push(wrong.clone());
                    if let Some(entry) = &page.good {
                        news.notes.push(format!("job `{}` {then}", entry.scheduled.job.name));
                    }
                }
                page.wrong = Some(wrong);
            }
        }
    }

    /// Puts together what fires now.
    fn gather(&mut self, news: &mut News) {
        let mut owners: HashMap<&JobName, &Path> = HashMap::new();
        let (mut jobs, mut doubles) = (Jobs::default(), Vec::new());
        for (path, page) in &self.pages {
            let Some(Entry { scheduled, script }) = &page.good else { continue };
            let name = &scheduled.job.name;
            if let Some(owner) = owners.get(name) {
                let (path, owner) = (shown(path), shown(owner));
                doubles.push(format!("error: `{path}`: job `{name}` is defined by `{owner}` already\n"));
                continue;
            }
            owners.insert(name, path);
            if !page.is_doubtful {
                jobs.scripts.insert(name.clone(), Arc::clone(script));
                jobs.scheduled.push(scheduled.clone());
            }
        }
        news.wrong.extend(doubles.iter().filter(|double| !self.doubles.contains(double)).cloned());
        self.doubles = doubles;
        let names: BTreeSet<JobName> = owners.into_keys().cloned().collect();
        news.gone.extend(self.names.difference(&names).cloned());
        (self.names, self.jobs) = (names, Arc::new(jobs));
    }
}

/// What is in a job file: the files that it names, and what fires; nothing where it has no schedule.
type Content = (Vec<PathBuf>, Result<Option<Entry>, Fault>);

/// Reads the job file at `path`.
fn read_job(workspace: &Workspace, path: &Path) -> Result<Content, String> {
    let file = workspace.read_job(path).map_err(refuse).map_err(|fail| fail.told())?;
    let job = workspace.layers(Overrides::default()).resolve(file).map_err(refuse).map_err(|fail| fail.told())?;
    let mut files = authority_files(&job, &workspace.root);
    if let Source::Script(path) = &job.source {
        files.push(workspace.root.join(path));
    }
    if job.schedule.expressions.is_empty() {
        return Ok((files, Ok(None)));
    }
    Ok((files, entry(workspace, job).map(Some)))
}

fn entry(workspace: &Workspace, mut job: Job) -> Result<Entry, Fault> {
    freeze_authorities(&mut job, &workspace.root).map_err(|fail| Fault::Doubt(fail.told()))?;
    sound(workspace, job).map_err(|fail| Fault::Edit(fail.told()))
}

fn sound(workspace: &Workspace, job: Job) -> Result<Entry, Fail> {
    let of_job = |why: String| Fail::usage(format!("job `{}`: {why}", job.name));
    refuse_what_is_not_built(&job)?;
    let script: Arc<[u8]> = workspace.script_of(&job).map_err(of_job)?.into();
    pack(&job, &script).map_err(|error| of_job(error.to_string()))?;
    let calendar = Calendar::new(&job.name, &job.schedule).map_err(|error| of_job(error.to_string()))?;
    Ok(Entry { scheduled: Scheduled { job, calendar }, script })
}
