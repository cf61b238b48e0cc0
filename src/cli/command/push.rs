//! `sshjob push`: Upload jobs and scripts to the store.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use schemars::JsonSchema;
use serde::Serialize;

use crate::adapter::store::AnyStore;
use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::output::json;
use crate::cli::output::words::number;
use crate::cli::project::{PROJECT_FILE, Workspace, read_at_most, refuse, shown};
use crate::cli::store;
use crate::domain::diagnostic::Diagnostic;
use crate::domain::document::Schema;
use crate::domain::id::JobName;
use crate::domain::job::Source;
use crate::domain::job::resolve::{Layers, Overrides};
use crate::domain::job::settings::Settings;
use crate::domain::layout::{self, Key};
use crate::domain::yaml;
use crate::engine::cursor;
use crate::engine::records::Runs;
use crate::engine::worker::pack;
use crate::functions::book::{key_of, lowest, read_job};
use crate::port::{Store as _, StoreError, Version, Written};

/// How many objects are read or written at a time.
const AT_A_TIME: usize = 16;

/// How many names are asked for at a time; what S3 gives at most.
const PAGE: usize = 1000;

/// How many files there may be in the store at most; more than any project has.
const MAX_THERE: usize = 100_000;

/// Upload the project's jobs and their scripts to the store, for the functions on AWS
///
/// Everything is checked first, as the functions will; where something is wrong nothing is uploaded. Scripts go before the
/// jobs that name them. The next tick goes by what is there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove jobs and scripts from the store that are not here
    #[arg(long)]
    delete: bool,
    /// Show what would be uploaded and removed; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    New,
    /// It was another.
    Changed,
    /// It is the same.
    Same,
    /// It was there and is not here, and stays.
    Stale,
    /// It was there and is not here, and goes.
    Removed,
}

impl Change {
    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Same => "same",
            Self::Stale => "stale",
            Self::Removed => "removed",
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PushDocument {
    schema: Schema,
    /// Whether nothing was done, for only that was asked for.
    dry_run: bool,
    files: Vec<FileDocument>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FileDocument {
    /// Where it is in the store.
    #[schemars(with = "String")]
    key: Key,
    change: Change,
}

/// Does it.
///
/// # Errors
/// What kept it from being done; what was uploaded until then is whole.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let workspace = Workspace::open(&global)?;
    if !store::is_named(&global, &workspace) {
        return Err(Fail::usage("no store is named, and what is in the one of this machine no function reads")
            .hint("write `store: s3://bucket/prefix` into sshjob.yaml, as `infra/deploy` says it, or use `--store`"));
    }
    let files = collect(&workspace)?;
    let runs = store::open(&global, Some(&workspace)).await?;
    let found = compare(&runs, &files).await?;
    let mut changes: Vec<(Key, Change)> = Vec::new();
    for (key, change, version) in found {
        let change = if change == Change::Stale && args.delete { Change::Removed } else { change };
        if !args.dry_run {
            if change == Change::Removed {
                cursor::forget(&runs, &job_at(&runs, &key).await?.into_iter().collect()).await?;
            }
            carry_out(&runs, &key, change, files.get(&key), version).await?;
        }
        changes.push((key, change));
    }
    let mut console = Console::new(global.color);
    if global.output == Format::Text {
        console.out(text(&changes, &args, global.quiet));
    } else {
        let files = changes.into_iter().map(|(key, change)| FileDocument { key, change }).collect();
        json::line(&mut console, &PushDocument { schema: Schema::V1, dry_run: args.dry_run, files });
    }
    Ok(if console.has_failed() { Exit::Unavailable } else { Exit::Success })
}

/// The objects that the store is to hold, checked as functions check them.
///
/// # Errors
/// Everything that is wrong with them.
pub fn collect(workspace: &Workspace) -> Result<BTreeMap<Key, Vec<u8>>, Fail> {
    let paths = workspace.job_paths()?;
    if paths.is_empty() {
        return Err(Fail::usage(format!("there are no job files in `{}`", shown(&workspace.root.join("jobs"))))
            .hint("`sshjob init` creates a project with a first job"));
    }
    let (_, mut wrong) = workspace.read_jobs(&paths);
    if !wrong.is_empty() {
        return Err(refuse(wrong));
    }
    let mut files = BTreeMap::new();
    let project = workspace.root.join(PROJECT_FILE);
    if project.exists() {
        files.insert(layout::project(), read(&project)?);
    }
    // The environment of whoever pushes is not that of the functions.
    let settings = workspace.project.settings.clone().over(lowest());
    for path in paths {
        let bytes = read(&path)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(key) = name.and_then(|name| Key::parse(&format!("{}{name}", layout::JOBS))) else {
            let why = "its name cannot be one in a store: `A-Z`, `a-z`, `0-9` and `-_.:%@+=,` are allowed";
            wrong.push(Diagnostic::of_file(shown(&path), why));
            continue;
        };
        let layers =
            Layers { request: Overrides::default(), environment: Settings::default(), project: settings.clone() };
        let job = match read_job(&key, &bytes, layers) {
            Ok(job) => job,
            Err(found) => {
                wrong.extend(found);
                continue;
            }
        };
        let script = workspace.script_of(&job).map_err(Fail::usage)?;
        if let Err(error) = pack(&job, &script.clone().into()) {
            wrong.push(Diagnostic::of_file(shown(&path), error.to_string()));
        }
        if let Source::Script(path) = &job.source {
            match key_of(path) {
                Ok(key) => {
                    files.insert(key, script);
                }
                Err(why) => wrong.push(Diagnostic::of_file(key.as_str(), why)),
            }
        }
        files.insert(key, bytes);
    }
    if wrong.is_empty() { Ok(files) } else { Err(refuse(wrong)) }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, Fail> {
    // One byte more than is allowed, so that the check of the length sees it.
    read_at_most(path, yaml::MAX_FILE_BYTES + 1)
        .map_err(|error| Fail::usage(format!("cannot read `{}`: {error}", shown(path))))
}

/// How the store differs from `files`: scripts first, then the project file, then jobs, and last what is there only.
///
/// # Errors
/// Where the store does not answer.
pub async fn compare(
    runs: &Runs<AnyStore>,
    files: &BTreeMap<Key, Vec<u8>>,
) -> Result<Vec<(Key, Change, Option<Version>)>, StoreError> {
    let looks = files.iter().map(|(key, bytes)| async move {
        let found = runs.store().get(key).await?;
        let change = match &found {
            None => Change::New,
            Some(found) if found.bytes == *bytes => Change::Same,
            Some(_) => Change::Changed,
        };
        Ok((key.clone(), change, found.map(|found| found.version)))
    });
    let mut found: Vec<_> = stream::iter(looks).buffered(AT_A_TIME).try_collect().await?;
    found.sort_by_key(|(key, ..)| (rank(key), key.clone()));
    let here: BTreeSet<&Key> = files.keys().collect();
    // What nobody names any more goes after those that named it.
    for prefix in [layout::JOBS, layout::SCRIPTS] {
        let mut after: Option<Key> = None;
        loop {
            let page = runs.store().list(prefix, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            let stale = page.into_iter().filter(|key| !here.contains(key));
            found.extend(stale.map(|key| (key, Change::Stale, None)));
            if found.len() > MAX_THERE {
                let why = format!("it holds more than {MAX_THERE} files that are not here");
                return Err(StoreError::Damaged { at: prefix.to_owned(), why });
            }
        }
    }
    Ok(found)
}

fn rank(key: &Key) -> u8 {
    match key.as_str() {
        key if key.starts_with(layout::SCRIPTS) => 0,
        key if key.starts_with(layout::JOBS) => 2,
        _ => 1,
    }
}

async fn carry_out(
    runs: &Runs<AnyStore>,
    key: &Key,
    change: Change,
    bytes: Option<&Vec<u8>>,
    version: Option<Version>,
) -> Result<(), Fail> {
    let bytes = || bytes.cloned().unwrap_or_default();
    let written = match (change, &version) {
        (Change::New, _) => runs.store().create(key, bytes()).await?,
        (Change::Changed, Some(version)) => runs.store().swap(key, version, bytes()).await?,
        (Change::Removed, _) => return Ok(runs.store().remove(key).await?),
        _ => return Ok(()),
    };
    match written {
        Written::Done(_) => Ok(()),
        Written::Conflict => {
            Err(Fail::new(Exit::Unavailable, format!("somebody else has written `{key}` at the same time"))
                .hint("see what they pushed, then push again"))
        }
    }
}

/// The job that is at `key`, where one is.
async fn job_at(runs: &Runs<AnyStore>, key: &Key) -> Result<Option<JobName>, StoreError> {
    let Some(object) = runs.store().get(key).await? else { return Ok(None) };
    Ok(read_job(key, &object.bytes, Layers::default()).ok().map(|job| job.name))
}

fn text(changes: &[(Key, Change)], args: &Args, quiet: bool) -> String {
    let told = changes.iter().filter(|(_, change)| *change != Change::Same);
    let mut lines: Vec<String> = told.map(|(key, change)| format!("{:8} {key}\n", change.as_str())).collect();
    if !quiet {
        let count = |wanted: &[Change]| changes.iter().filter(|(_, change)| wanted.contains(change)).count();
        let (uploaded, same) = (count(&[Change::New, Change::Changed]), count(&[Change::Same]));
        let would = if args.dry_run { " would be" } else { "" };
        let rest = match (count(&[Change::Removed]), count(&[Change::Stale])) {
            (0, 0) => String::new(),
            (0, stale) => format!(", {stale} not here (`--delete` removes them)"),
            (removed, _) => format!(", {removed}{would} removed"),
        };
        lines.push(format!("{}{would} uploaded, {same} the same{rest}\n", number(uploaded, "file")));
    }
    lines.concat()
}
