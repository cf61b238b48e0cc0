//! Waiting for what other processes bring about. The deadline is only there to fail at last.

use std::path::Path;
use std::time::{Duration, Instant};

/// Far longer than anything takes that is waited for, on however busy a machine.
const AT_LAST: Duration = Duration::from_mins(1);

/// Waits until it `holds`; tells how long that took.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < AT_LAST, "not within {AT_LAST:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

/// Waits until there is such a file: what a host writes tells how far it is.
#[track_caller]
pub(crate) fn wait_for(path: &Path) {
    eventually(&path.display().to_string(), || path.exists());
}
