//! Tests that cannot be done on a machine: they pass, and `tests/run` tells of them at its end.

use std::io::Write as _;

/// Names the file that `tests/run` reads at its end.
const TOLD_IN: &str = "SSHJOB_TESTS_NOT_DONE";

/// Says that this test, or a part of it, cannot be done here because of `why`.
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
    let Some(path) = std::env::var_os(TOLD_IN) else { return };
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // In one write: several tests end at a time.
    file.write_all(format!("{test}: {why}\n").as_bytes()).unwrap();
}

/// Says that this test cannot be done without `tool`. Where `tests/run` has installed what is needed, that is a failure.
#[track_caller]
pub(crate) fn missing(tool: &str) {
    assert!(std::env::var_os(TOLD_IN).is_none(), "no `{tool}` on this machine, and tests/run installs it");
    skipped(&format!("no `{tool}` on this machine; tests/run installs it"));
}
