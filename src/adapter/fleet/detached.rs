//! Detached scripts on embedded hosts: they outlive their channel, as on any host, but not their fleet.

use std::fs::read_dir;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::adapter::process;

/// Kills what runs for the attempts below `home`.
pub(super) fn kill_all(home: &Path) {
    let runs = below(vec![home.join(".sshjob")]);
    for attempt in below(below(below(runs))) {
        // There may be nobody left to kill. The supervisor goes first: it would write about the end of the other.
        if let Some(supervisor) = alive(&attempt.join("self"), 1) {
            let _ = kill_process(supervisor, Signal::KILL);
        }
        if let Some(leader) = alive(&attempt.join("leader"), 0) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// What lies in these folders.
fn below(folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let entries = folders.into_iter().filter_map(|folder| read_dir(folder).ok()).flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The process whose number and start time are the words from the `n`-th on of a file, where it still runs.
fn alive(file: &Path, n: usize) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut words = text.split_ascii_whitespace().skip(n);
    let (pid, since) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    process::is_running(pid, since).then_some(())?;
    Pid::from_raw(i32::try_from(pid).ok()?)
}
