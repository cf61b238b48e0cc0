//! Which store a command reads and writes, and which run a person means.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::adapter::dir::Dir;
use crate::adapter::store::AnyStore;
use crate::domain::id::RunId;
use crate::engine::history::{Unresolved, resolve};
use crate::engine::records::Runs;
use crate::port::Store;

use super::context::Global;
use super::exit::Fail;
use super::project::Workspace;

/// Opens the store that the flag or `SSHJOB_STORE` names, else the project file of `workspace`, else the user's own.
///
/// # Errors
/// Where it cannot be opened, or needs AWS.
pub async fn open(global: &Global, workspace: Option<&Workspace>) -> Result<Runs<AnyStore>, Fail> {
    let place = place(global, workspace)?;
    tracing::info!(store = ?place, "opened");
    Ok(Runs::new(match place {
        Place::Dir(root) => AnyStore::Dir(Dir::open(root)?),
        Place::Bucket(place) => global.aws.store(&place).await?,
    }))
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    /// In this directory.
    Dir(PathBuf),
    /// In S3, as `s3://bucket/prefix`.
    Bucket(String),
}

/// Where the store is that [`open`] opens.
///
/// # Errors
/// Where there is no place for it.
pub fn place(global: &Global, workspace: Option<&Workspace>) -> Result<Place, Fail> {
    let project = workspace.and_then(|workspace| Some((workspace.root.as_path(), workspace.project.store.as_ref()?)));
    let project = project.map(|(root, store)| (root, store.value.as_str()));
    let home = |name| variable(name).map(PathBuf::from);
    locate(global.store.as_deref(), project, home("XDG_STATE_HOME"), home("HOME"))
}

/// Whether a flag, the environment or the project file says where the store is.
pub fn is_named(global: &Global, workspace: &Workspace) -> bool {
    global.store.is_some() || workspace.project.store.is_some()
}

/// Opens the store of a command that needs nothing else of the project.
///
/// # Errors
/// As [`open`]; also what is wrong with the project file, where no flag makes it irrelevant.
pub async fn open_here(global: &Global) -> Result<Runs<AnyStore>, Fail> {
    match global.store {
        Some(_) => open(global, None).await,
        None => open(global, Some(&Workspace::open(global)?)).await,
    }
}

/// Where the store is: the flag, else the project's (relative to its folder), else below the user's state folder.
fn locate(
    flag: Option<&str>,
    project: Option<(&Path, &str)>,
    state: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<Place, Fail> {
    let named = flag.map(|store| (Path::new(""), store)).or(project);
    if let Some((base, store)) = named {
        if store.starts_with("s3://") {
            return Ok(Place::Bucket(store.to_owned()));
        }
        if store.is_empty() {
            return Err(Fail::usage("the store has an empty name; a directory or `s3://bucket/prefix` is allowed"));
        }
        return Ok(Place::Dir(base.join(store)));
    }
    // XDG Base Directory Specification: a path that is not absolute is to be ignored.
    let state = state.filter(|path| path.is_absolute());
    let state = state.or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state")));
    let state = state.ok_or_else(|| {
        Fail::usage("no place for the store: neither XDG_STATE_HOME nor HOME is an absolute path")
            .hint("name a directory with `--store`")
    })?;
    Ok(Place::Dir(state.join("sshjob")))
}

#[expect(clippy::disallowed_methods, reason = "the command line is who reads the environment")]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Finds the run that a person calls `name`: its id, the beginning of it, or `last`.
///
/// # Errors
/// Where it is not exactly one; with the candidates, or the run with the most similar id.
pub async fn find<S: Store>(runs: &Runs<S>, name: &str) -> Result<RunId, Fail> {
    let unresolved = match resolve(runs, name).await {
        Ok(run) => return Ok(run),
        Err(Unresolved::Store(error)) => return Err(error.into()),
        Err(unresolved) => unresolved,
    };
    let fail = Fail::usage(super::output::lines::clean(&unresolved.to_string()));
    Err(match unresolved {
        Unresolved::Ambiguous { candidates, .. } => {
            let list: Vec<&str> = candidates.iter().map(RunId::as_str).collect();
            fail.hint(format!("give more of the id; the newest are\n  {}", list.join("\n  ")))
        }
        Unresolved::Unknown { nearest: Some(nearest), .. } => {
            fail.hint(format!("`{nearest}` is the most similar; `sshjob runs` lists all"))
        }
        Unresolved::None => fail.hint("`sshjob run` starts one; `--store` names the store where they are elsewhere"),
        _ => fail.hint("`sshjob runs` lists all"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(
        flag: Option<&str>,
        project: Option<&str>,
        state: Option<&str>,
        home: Option<&str>,
    ) -> Result<String, Fail> {
        let project = project.map(|store| (Path::new("/project"), store));
        let place = locate(flag, project, state.map(Into::into), home.map(Into::into))?;
        Ok(match place {
            Place::Dir(path) => path.display().to_string(),
            Place::Bucket(place) => place,
        })
    }

    #[test]
    fn store_is_the_first_that_is_named() {
        let all = |flag, project| located(flag, project, Some("/state"), Some("/home/u")).unwrap();
        assert_eq!(all(Some("here"), Some("runs")), "here");
        assert_eq!(all(None, Some("runs")), "/project/runs");
        assert_eq!(all(None, Some("/srv/runs")), "/srv/runs");
        assert_eq!(all(None, None), "/state/sshjob");
        assert_eq!(located(None, None, None, Some("/home/u")).unwrap(), "/home/u/.local/state/sshjob");
        assert_eq!(located(None, None, Some("relative"), Some("/home/u")).unwrap(), "/home/u/.local/state/sshjob");
    }

    #[test]
    fn bucket_is_below_no_folder() {
        assert_eq!(located(None, Some("s3://bucket/prefix"), None, None).unwrap(), "s3://bucket/prefix");
    }

    #[test]
    fn store_without_a_place_is_a_usage_error() {
        assert_eq!(located(None, None, None, None).unwrap_err().exit, crate::cli::exit::Exit::Usage);
        assert_eq!(located(Some(""), None, Some("/state"), None).unwrap_err().exit, crate::cli::exit::Exit::Usage);
    }
}
