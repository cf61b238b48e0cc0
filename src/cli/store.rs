//! Which store a command reads and writes, and which run a person means.

use std::path::{Path, PathBuf};

use crate::adapter::dir::Dir;
use crate::domain::id::RunId;
use crate::engine::history::{Unresolved, resolve};
use crate::engine::records::Runs;
use crate::port::Store;

use super::context::Global;
use super::exit::{Exit, Fail};
use super::project::Workspace;

/// Opens the store that the flag or `SSHJOB_STORE` names, else the project file of `workspace`, else the user's own.
///
/// # Errors
/// Where it cannot be opened, or needs AWS.
pub fn open(global: &Global, workspace: Option<&Workspace>) -> Result<Runs<Dir>, Fail> {
    let root = place(global, workspace)?;
    tracing::info!(store = %root.display(), "opened");
    Ok(Runs::new(Dir::open(root)?))
}

/// Where the store is that [`open`] opens.
///
/// # Errors
/// Where there is no place for it, or it needs AWS.
pub fn place(global: &Global, workspace: Option<&Workspace>) -> Result<PathBuf, Fail> {
    let project = workspace.and_then(|workspace| Some((workspace.root.as_path(), workspace.project.store.as_ref()?)));
    let project = project.map(|(root, store)| (root, store.value.as_str()));
    let home = |name| variable(name).map(PathBuf::from);
    locate(global.store.as_deref(), project, home("XDG_STATE_HOME"), home("HOME"))
}

/// Opens the store of a command that needs nothing else of the project.
///
/// # Errors
/// As [`open`]; also what is wrong with the project file, where no flag makes it irrelevant.
pub fn open_here(global: &Global) -> Result<Runs<Dir>, Fail> {
    match global.store {
        Some(_) => open(global, None),
        None => open(global, Some(&Workspace::open(global)?)),
    }
}

/// Where the store is: the flag, else the project's (relative to its folder), else below the user's state folder.
fn locate(
    flag: Option<&str>,
    project: Option<(&Path, &str)>,
    state: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<PathBuf, Fail> {
    let named = flag.map(|store| (Path::new(""), store)).or(project);
    if let Some((base, store)) = named {
        if store.starts_with("s3://") {
            let why = format!("the store `{store}` needs a build with AWS; this one has none yet");
            return Err(Fail::new(Exit::Unavailable, why).hint("name a directory with `--store`"));
        }
        if store.is_empty() {
            return Err(Fail::usage("the store has an empty name; a directory or `s3://bucket/prefix` is allowed"));
        }
        return Ok(base.join(store));
    }
    // XDG Base Directory Specification: a path that is not absolute is to be ignored.
    let state = state.filter(|path| path.is_absolute());
    let state = state.or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state")));
    let state = state.ok_or_else(|| {
        Fail::usage("no place for the store: neither XDG_STATE_HOME nor HOME is an absolute path")
            .hint("name a directory with `--store`")
    })?;
    Ok(state.join("sshjob"))
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
        locate(flag, project, state.map(Into::into), home.map(Into::into)).map(|path| path.display().to_string())
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
    fn store_that_needs_aws_is_unavailable() {
        let fail = located(Some("s3://bucket/prefix"), None, None, None).unwrap_err();
        assert_eq!(fail.exit, Exit::Unavailable);
        assert_eq!(fail.message, "the store `s3://bucket/prefix` needs a build with AWS; this one has none yet");
    }

    #[test]
    fn store_without_a_place_is_a_usage_error() {
        assert_eq!(located(None, None, None, None).unwrap_err().exit, Exit::Usage);
        assert_eq!(located(Some(""), None, Some("/state"), None).unwrap_err().exit, Exit::Usage);
    }
}
