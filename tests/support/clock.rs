//! A wall clock of its own for a process, by libfaketime: one that runs faster than ours, or stands somewhere else.
//!
//! Only the wall clock is another; timers run as they do. What is fast, then, is how soon a minute begins, not how soon a
//! connection times out.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// A clock that was right when it was made, and has run `speed` times as fast since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FastClock {
    since: Instant,
    speed: u32,
}

impl FastClock {
    /// Starts now.
    pub(crate) fn new(speed: u32) -> Self {
        Self { since: Instant::now(), speed }
    }

    /// Has the program of `command` go by this clock. A process that starts later finds the time that the ones before it
    /// had come to.
    pub(crate) fn rule(&self, command: &mut Command) {
        let ahead = self.since.elapsed().as_secs_f64() * f64::from(self.speed - 1);
        set(command, &format!("+{ahead:.0} x{}", self.speed));
    }
}

/// Has the program of `command` find itself at this time, as `2026-11-23 05:00:30`, in UTC.
pub(crate) fn at(command: &mut Command, time: &str) {
    set(command, &format!("@{time}"));
}

/// Has the program of `command` go by a clock that stands there when it starts, and runs `speed` times as fast as ours.
pub(crate) fn from(command: &mut Command, time: &str, speed: u32) {
    set(command, &format!("@{time} x{speed}"));
}

fn set(command: &mut Command, time: &str) {
    command.env("LD_PRELOAD", library()).env("FAKETIME", time).env("TZ", "UTC");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
}

/// Where the library is: below a folder that is named after the machine's kind.
fn library() -> PathBuf {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].into_iter().map(PathBuf::from);
    let below = |folder: PathBuf| {
        let inner = std::fs::read_dir(&folder).into_iter().flatten().map_while(Result::ok).map(|entry| entry.path());
        inner.chain([folder]).collect::<Vec<_>>()
    };
    let places = folders.flat_map(below).map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let place = places.into_iter().find(|place| place.exists());
    place.expect("libfaketime is installed: run `tests/run`, or install `faketime`")
}
