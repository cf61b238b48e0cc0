//! Whatever happens at the start, an attempt runs once or never.

use std::sync::Barrier;

use super::*;

/// A script that leaves one line for each time that it runs.
const TRACE: &str = "#!/bin/sh\necho ran >>trace";

fn traces(host: &Host) -> usize {
    std::fs::read_to_string(host.dir("home").join("trace")).unwrap_or_default().lines().count()
}

#[test]
fn attempt_that_is_started_from_everywhere_at_once_runs_once() {
    for (shell, host) in Host::of_every_shell() {
        for number in 1..=4 {
            let (one, gate) = (attempt(number), Barrier::new(5));
            let started: Vec<_> = std::thread::scope(|scope| {
                let start = || {
                    gate.wait();
                    host.start(TRACE, &one)
                };
                let starts: Vec<_> = (0..5).map(|_| scope.spawn(start)).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect()
            });
            let count = |answer| started.iter().filter(|it| **it == Ok(answer)).count();
            assert_eq!((count(Started::Now), count(Started::Before)), (1, 4), "{shell}: {started:?}");
            assert_eq!(how(&host.wait(&one).verdict), (How::Exit(0), Why::Itself), "{shell}");
            assert_eq!(traces(&host), usize::try_from(number).unwrap(), "{shell}");
        }
        let left = std::fs::read_dir(host.home_of(&attempt(1)).parent().unwrap()).unwrap().count();
        assert_eq!(left, 4, "{shell}: nothing but the attempts is left");
    }
}
