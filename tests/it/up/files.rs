//! What becomes of jobs, scripts, the project and the inventory while they are edited under a scheduler.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use sshjob::cli::aws::Aws;
use sshjob::cli::context::{Color, Format, Global};
use sshjob::cli::project::Workspace;
use sshjob::cli::up::book::{Book, News};
use sshjob::domain::authority::Authority;
use sshjob::engine::tick::NOTHING_MATCHES;

use super::*;
use crate::support::ca;
use crate::support::key;

/// When the last run of `job` fired that was told so far.
fn last_fired(scheduler: &Scheduler, job: &str) -> Option<String> {
    let prefix = format!("{job}-");
    let fired = scheduler.out().into_iter().filter(|line| line.contains("  fired  ")).map(|line| run_of(&line));
    fired.rev().find_map(|run| run.strip_prefix(&prefix).map(str::to_owned))
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

/// Cause: a job began when its first firing was due, and that was not to be made up for.
#[test]
fn job_that_is_new_misses_not_even_its_only_firing() {
    let world = World::new(1);
    let scheduler = start(&world, FastClock::new(1), &[]);
    eventually("its first tick", || world.path().join("store/state/cursor.json").exists());
    let at = Timestamp::now() + SignedDuration::from_secs(15);
    let job = format!(
        "schedule: 'at({})'\ntargets: {{ tags: {{ Environment: Dev }} }}\nrun: 'true'\n",
        at.strftime("%Y-%m-%dT%H:%M:%S")
    );
    fs::create_dir_all(world.path().join("jobs")).unwrap();
    fs::write(world.path().join("jobs/once.yaml"), job).unwrap();
    scheduler.line("its verdict", |line| line.contains("  succeeded  once-"));
}

#[test]
fn changed_script_mended_edit_project_and_inventory_are_taken_up_and_told() {
    let world = World::new(1);
    let write = |name: &str, text: &str| {
        let draft = world.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, world.path().join(name)).unwrap();
    };
    let script = |word: &str| format!("#!/bin/sh\necho {word} >> {}/marks\n", world.path().display());
    let job = "schedule: '* * * * *'\ntargets: { tags: { Environment: Dev } }\nscript: scripts/hello.sh\n";
    for folder in ["jobs", "scripts"] {
        fs::create_dir_all(world.path().join(folder)).unwrap();
    }
    write("scripts/hello.sh", &script("one"));
    write("jobs/hello.yaml", job);
    let mut scheduler = start(&world, FastClock::new(60), &[]);
    let runs = |word: &str| {
        eventually(word, || marks(&world.path().join("marks")).iter().any(|mark| mark == word));
    };
    runs("one");
    write("scripts/hello.sh", &script("two"));
    scheduler.complaint("the script", |line| line == "job `hello` has changed");
    runs("two");

    write("jobs/hello.yaml", &format!("{job}sudoo: true\n"));
    scheduler.complaint("the error", |line| line.contains("unknown key `sudoo`"));
    write("jobs/hello.yaml", job);
    scheduler.complaint("that it is mended", |line| line == "`jobs/hello.yaml` is mended");

    let project = fs::read_to_string(world.path().join("sshjob.yaml")).unwrap();
    let changes = || scheduler.err().iter().filter(|line| *line == "job `hello` has changed").count();
    let before = changes();
    write("sshjob.yaml", &format!("{project}timeout: 3m\n"));
    scheduler.complaint("the project", |line| line == "`sshjob.yaml` was read again");
    eventually("that it counts for the job", || changes() == before + 1);
    write("sshjob.yaml", &format!("{project}timeout: never\n"));
    scheduler.complaint("the error", |line| line.contains("`timeout`: `never` is not a duration"));
    scheduler.complaint("what counts", |line| line == "`sshjob.yaml` counts as it was before");

    let hosts = fs::read_to_string(world.path().join("hosts.yaml")).unwrap();
    write("hosts.yaml", &format!("{hosts}  - {{ id: web-1, tagss: {{}} }}\n"));
    scheduler.complaint("the error", |line| line.contains("unknown key `tagss`"));
    write("hosts.yaml", &hosts.replace("Dev", "Test"));
    scheduler.complaint("the inventory", |line| line == "`hosts.yaml` has changed");
    scheduler.line("what comes of it", |line| line.contains("  skipped    hello-") && line.ends_with(NOTHING_MATCHES));
    assert_eq!(scheduler.terminate().code(), Some(0), "{:?}", scheduler.err());
}

/// A project whose jobs are read as a scheduler reads them.
fn book(root: &Path) -> Book {
    let global = Global {
        project: Some(root.to_owned()),
        store: None,
        profile: None,
        region: Vec::new(),
        output: Format::Text,
        quiet: false,
        verbose: 0,
        color: Color::Never,
        fleeting: false,
        deaf: false,
        aws: Aws::default(),
    };
    let (book, news) = Book::open(&global, Workspace::open(&global).unwrap());
    assert!(news.wrong.is_empty(), "{:?}", news.wrong);
    book
}

/// Cause: the authorities of a job were read with its file alone, and whom somebody had taken out was believed on.
#[test]
fn authority_that_is_taken_out_of_its_file_is_not_believed_any_more() {
    let project = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(project.path().join(name), text).unwrap();
    let [one, two] = [(), ()].map(|()| ca::Authority::new(&key::fresh()).public());
    write("ca.pub", &format!("{one}\n{two}\n"));
    write("sshjob.yaml", "inventory: { file: hosts.yaml }\nhost_key: ca\nhost_ca: ca.pub\n");
    fs::create_dir(project.path().join("jobs")).unwrap();
    write("jobs/a.yaml", "schedule: '* * * * *'\ntargets: { tags: { Role: web } }\nrun: x\n");
    let mut book = book(project.path());
    let believed = |book: &Book| match book.jobs().scheduled.as_slice() {
        [scheduled] => Some(scheduled.job.login.host_ca.len()),
        _ => None,
    };
    assert_eq!(believed(&book), Some(2));
    assert!(!book.look(true).changed);
    write("ca.pub", &format!("{one}\n"));
    assert!(book.look(true).changed);
    assert_eq!(believed(&book), Some(1));
    let [Authority::Key(left)] = &*book.jobs().scheduled[0].job.login.host_ca else { panic!() };
    assert!(one.starts_with(left.as_str()), "{left}");
    // Where nobody is left the job does not go on with whom it knew, and is not forgotten either.
    fs::remove_file(project.path().join("ca.pub")).unwrap();
    let News { wrong, notes, gone, .. } = book.look(true);
    assert!(wrong[0].contains("cannot read the authorities in `ca.pub`"), "{wrong:?}");
    assert_eq!(notes, ["job `a` fires no more until that is mended"]);
    assert_eq!((believed(&book), gone.len()), (None, 0));
    write("ca.pub", &format!("{two}\n"));
    assert_eq!((book.look(true).changed, believed(&book)), (true, Some(1)));
}

/// Cause: jobs whose folder was mounted anew were taken for removed, and nothing was made up for.
#[test]
fn folder_of_the_jobs_that_is_gone_for_a_while_takes_none_away() {
    let project = tempfile::tempdir().unwrap();
    let (jobs, elsewhere) = (project.path().join("jobs"), project.path().join("elsewhere"));
    fs::write(project.path().join("sshjob.yaml"), "inventory: { file: hosts.yaml }\n").unwrap();
    fs::create_dir(&jobs).unwrap();
    fs::write(jobs.join("a.yaml"), "schedule: '* * * * *'\ntargets: { tags: { Role: web } }\nrun: x\n").unwrap();
    let mut book = book(project.path());
    fs::rename(&jobs, &elsewhere).unwrap();
    let News { changed, wrong, gone, .. } = book.look(true);
    assert!(wrong[0].contains("jobs` is gone"), "{wrong:?}");
    assert_eq!((changed, gone.len(), book.jobs().scheduled.len()), (false, 0, 1));
    fs::rename(&elsewhere, &jobs).unwrap();
    assert!(!book.look(true).changed && !book.is_faulty());
    // An empty one says that there are none.
    fs::remove_file(jobs.join("a.yaml")).unwrap();
    assert_eq!((book.look(true).gone.len(), book.jobs().scheduled.len()), (1, 0));
}
