//! How a scheduler goes, and who else is there.

use std::fs::File;
use std::io::{Read as _, Write as _};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Cause: it waited for all of what it had said to be read.
#[test]
fn scheduler_that_nobody_reads_goes_all_the_same() {
    let world = World::new(1);
    write_job(&world, "hello", "echo $SSHJOB_RUN_ID >> $WHERE/marks", "");
    let (mut unread, full) = std::io::pipe().unwrap();
    fcntl_setfl(&full, OFlags::NONBLOCK).unwrap();
    let mut end = File::from(std::os::fd::OwnedFd::from(full.try_clone().unwrap()));
    while end.write(&[b'x'; 4096]).is_ok() {}
    while end.write(b"x").is_ok() {}
    fcntl_setfl(&full, OFlags::empty()).unwrap();
    let mut command = up(&world, &[]);
    FastClock::new(60).rule(&mut command);
    command.stdout(full).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    drop((command, end));
    // What it has fired it says before anything starts.
    wait_for(&world.path().join("marks"));
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let mut status = None;
    eventually("its end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    let mut said = Vec::new();
    unread.read_to_end(&mut said).unwrap();
    assert!(said.iter().all(|byte| *byte == b'x'));
}

#[test]
fn scheduler_that_finds_another_at_work_says_so_and_runs_nothing_twice() {
    let world = World::new(1);
    let script = "echo $SSHJOB_RUN_ID >> $WHERE/marks; until [ -e $WHERE/go ]; do sleep 0.05; done";
    write_job(&world, "slow", script, "timeout: 10m\n");
    let clock = FastClock::new(60);
    let first = start(&world, clock, &[]);
    let run = run_of(&first.line("a firing", |line| line.contains("  fired      slow-")));
    wait_for(&world.path().join("marks"));
    let mut second = start(&world, clock, &[]);
    let told =
        format!("another scheduler is at work on this store: it drives run `{run}`; nothing is run twice by that");
    second.complaint("that it is not alone", |line| line == told);
    assert_eq!(second.terminate().code(), Some(0), "{:?}", second.err());
    assert_eq!(second.err().iter().filter(|line| line.starts_with("another scheduler")).count(), 1);
    fs::write(world.path().join("go"), "").unwrap();
    first.line("its verdict", |line| line.contains(&format!("  succeeded  {run}")));
    let starts = marks(&world.path().join("marks"));
    assert_eq!(starts.iter().filter(|line| **line == run).count(), 1, "{starts:?}");
}
