//! What becomes of jobs, scripts, the project and the inventory while they are edited under a scheduler.

use super::*;

/// When the last run of `job` fired that was told so far.
fn last_fired(scheduler: &Scheduler, job: &str) -> Option<String> {
    let prefix = format!("{job}-");
    let fired = scheduler.out().into_iter().filter(|line| line.contains("  fired  ")).map(|line| run_of(&line));
    fired.filter_map(|run| run.strip_prefix(&prefix).map(str::to_owned)).last()
}

/// Cause: what nobody had decided while a job's file was gone was made up for when it came back.
#[test]
fn job_that_is_removed_and_brought_back_makes_up_for_nothing() {
    let world = World::new(1);
    for job in ["beat", "hello"] {
        write_job(&world, job, "true", "overlap: allow\n");
    }
    let scheduler = start(&world, FastClock::new(60), &[]);
    scheduler.line("a verdict", |line| line.contains("  succeeded  hello-"));
    fs::remove_file(world.path().join("jobs/hello.yaml")).unwrap();
    scheduler.complaint("the removal", |line| line == "job `hello` is gone: it fires no more");
    let before = (last_fired(&scheduler, "hello"), last_fired(&scheduler, "beat").unwrap());
    let beats = || scheduler.out().iter().filter(|line| line.contains("  fired      beat-")).count();
    let so_far = beats();
    eventually("some minutes without it", || beats() >= so_far + 4);
    assert_eq!(last_fired(&scheduler, "hello"), before.0);
    let gone_until = last_fired(&scheduler, "beat").unwrap();
    write_job(&world, "hello", "true", "overlap: allow\n");
    scheduler.complaint("that it is back", |line| line == "job `hello` is new");
    eventually("its next firing", || last_fired(&scheduler, "hello") != before.0);
    let fired =
        scheduler.out().into_iter().filter(|line| line.contains("  fired      hello-")).map(|line| run_of(&line));
    let made_up: Vec<String> = fired.filter(|run| run.as_str() > &*format!("hello-{}", before.1)).collect();
    assert!(made_up.iter().all(|run| run.as_str() > &*format!("hello-{gone_until}")), "{made_up:?}");
}
