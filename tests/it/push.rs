//! `sshjob push`, and what is made of the jobs that it has put into a store.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const HELLO: &str = "targets: { tags: { Role: web } }\nscript: scripts/hello.sh\nschedule: '0 8 * * *'\n";
const LATE: &str = "targets: { tags: { Role: web } }\nrun: date\n";

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("sshjob.yaml", "store: store\nkey: s3://keys-bucket/dev.pem\n"),
        ("jobs/hello.yaml", HELLO),
        ("jobs/late.yaml", LATE),
        ("scripts/hello.sh", "#!/bin/sh\necho hello\n"),
        ("scripts/unused.sh", "#!/bin/sh\n"),
    ] {
        write(folder.path(), path, text);
    }
    folder
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn sshjob(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sshjob")).args(words).current_dir(folder).env_clear().output().unwrap()
}

/// What a command says, and how it ends.
fn said(folder: &Path, words: &[&str]) -> String {
    let output = sshjob(folder, words);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    format!("{out}{err}{}", output.status.code().unwrap())
}

fn stored(folder: &Path, key: &str) -> Option<String> {
    fs::read_to_string(folder.join("store").join(key)).ok()
}

#[test]
fn push_uploads_what_jobs_need_and_no_more_and_only_what_has_changed() {
    let project = project();
    let here = project.path();
    let all = "new      scripts/hello.sh\nnew      sshjob.yaml\nnew      jobs/hello.yaml\nnew      jobs/late.yaml\n";
    assert_eq!(said(here, &["push", "--dry-run"]), format!("{all}4 files would be uploaded, 0 the same\n0"));
    assert_eq!(stored(here, "jobs/hello.yaml"), None);
    assert_eq!(said(here, &["push"]), format!("{all}4 files uploaded, 0 the same\n0"));
    assert_eq!(stored(here, "jobs/hello.yaml").as_deref(), Some(HELLO));
    assert_eq!(stored(here, "scripts/unused.sh"), None);
    assert_eq!(said(here, &["push"]), "0 files uploaded, 4 the same\n0");
    write(here, "scripts/hello.sh", "#!/bin/sh\necho hello again\n");
    let json: serde_json::Value = serde_json::from_slice(&sshjob(here, &["push", "-o", "json"]).stdout).unwrap();
    let changed = serde_json::json!({ "key": "scripts/hello.sh", "change": "changed" });
    assert_eq!((&json["dry_run"], &json["files"][0]), (&false.into(), &changed));
    assert_eq!(stored(here, "scripts/hello.sh").unwrap(), "#!/bin/sh\necho hello again\n");
}

/// Cause: who had not said where the store is uploaded to a folder of their own, and no function ever heard of it.
#[test]
fn push_to_a_store_that_nobody_has_named_is_refused() {
    let project = project();
    let here = project.path();
    write(here, "sshjob.yaml", "key: s3://keys-bucket/dev.pem\n");
    let said = said(here, &["push"]);
    assert!(said.starts_with("error: no store is named") && said.ends_with('2'), "{said}");
    assert!(said.contains("hint: write `store: s3://bucket/prefix` into sshjob.yaml"), "{said}");
}

#[test]
fn what_is_no_longer_here_stays_in_the_store_until_that_is_asked_for() {
    let project = project();
    let here = project.path();
    sshjob(here, &["push"]);
    fs::remove_file(here.join("jobs/hello.yaml")).unwrap();
    let stale = "stale    jobs/hello.yaml\nstale    scripts/hello.sh\n";
    let told = format!("{stale}0 files uploaded, 2 the same, 2 not here (`--delete` removes them)\n0");
    assert_eq!(said(here, &["push"]), told);
    let gone = "removed  jobs/hello.yaml\nremoved  scripts/hello.sh\n";
    let would = format!("{gone}0 files would be uploaded, 2 the same, 2 would be removed\n0");
    assert_eq!(said(here, &["push", "--delete", "--dry-run"]), would);
    assert!(stored(here, "jobs/hello.yaml").is_some());
    assert_eq!(said(here, &["push", "--delete"]), format!("{gone}0 files uploaded, 2 the same, 2 removed\n0"));
    assert_eq!((stored(here, "jobs/hello.yaml"), stored(here, "scripts/hello.sh")), (None, None));
}

#[test]
fn job_that_is_removed_from_the_store_begins_anew_when_it_is_pushed_again() {
    let project = project();
    let here = project.path();
    sshjob(here, &["push"]);
    fs::create_dir_all(here.join("store/state")).unwrap();
    write(here, "store/state/cursor.json", r#"{"ticked":"2026-11-23T05:00:00Z","known":["hello","other"]}"#);
    fs::remove_file(here.join("jobs/hello.yaml")).unwrap();
    sshjob(here, &["push", "--delete"]);
    let cursor = stored(here, "state/cursor.json").unwrap();
    assert_eq!(cursor, "{\"ticked\":\"2026-11-23T05:00:00Z\",\"known\":[\"other\"]}\n");
}

#[test]
fn nothing_is_uploaded_where_something_is_wrong_with_any_job() {
    for (path, text, why) in [
        ("jobs/bad.yaml", "targets: { tags: { Role: web } }\nrun: date\ntimout: 5m\n", "did you mean `timeout`?"),
        ("jobs/bad.yaml", "targets: { tags: { Role: web } }\nscript: scripts/none.sh\n", "none.sh"),
        ("jobs/bad.yaml", "targets: { tags: { Role: web } }\nscript: tools/x.sh\n", "only files below `scripts/`"),
        (
            "jobs/bad.yaml",
            "targets: { tags: { Role: web } }\nrun: date\nschedule: '@daily'\ntimeout: 1h\n",
            "the worker's 14m",
        ),
        ("sshjob.yaml", "store: store\nhost_key: ca\nhost_ca: [ca.pub]\n", "a function has no files"),
        ("jobs/b d.yaml", "name: bad\ntargets: { tags: { Role: web } }\nrun: date\n", "cannot be one in a store"),
    ] {
        let project = project();
        write(project.path(), path, text);
        write(project.path(), "tools/x.sh", "#!/bin/sh\n");
        let told = said(project.path(), &["push"]);
        assert!(told.contains("error: ") && told.contains(why) && told.ends_with("\n2"), "{text}: {told}");
        assert!(!project.path().join("store").join("jobs").exists(), "{text}");
    }
}

#[test]
fn project_without_jobs_is_not_taken_for_one_whose_jobs_are_to_go() {
    let project = project();
    sshjob(project.path(), &["push"]);
    fs::remove_dir_all(project.path().join("jobs")).unwrap();
    let told = said(project.path(), &["push", "--delete"]);
    assert!(told.starts_with("error: there are no job files in `jobs`") && told.ends_with("\n2"), "{told}");
    assert!(stored(project.path(), "jobs/hello.yaml").is_some());
}

#[test]
fn next_tells_of_the_jobs_of_the_store_where_none_are_here() {
    let project = project();
    sshjob(project.path(), &["push"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let store = project.path().join("store");
    let words = ["--store", store.to_str().unwrap(), "next", "-n1", "--from", "2026-11-24"];
    let listing = "TIME                  ZONE  OFFSET  JOB    SCHEDULE\n\
                   Tue 2026-11-24 08:00  UTC   +00:00  hello  at 08:00 every day\n\
                   on demand only: late\n0";
    assert_eq!(said(elsewhere.path(), &words), listing);
    let none = said(elsewhere.path(), &["--store", store.to_str().unwrap(), "next", "nope"]);
    assert_eq!(none, "error: there is no job `nope` in the store\nhint: `sshjob push` uploads jobs and scripts\n2");
}

#[test]
fn run_by_the_functions_needs_functions_a_job_and_nothing_that_they_cannot_be_told() {
    let project = project();
    let here = project.path();
    let by_them = |words: &[&str]| said(here, &[&["run", "--via", "lambda"], words].concat());
    assert!(by_them(&["hello"]).starts_with("error: no functions are named"));
    write(here, "sshjob.yaml", "store: store\nfunctions: { trigger: the-trigger, worker: the-worker }\n");
    assert!(by_them(&["-t", "Role=web", "--", "date"]).starts_with("error: the functions run jobs that were pushed"));
    for words in [
        &["hello", "-u", "root"][..],
        &["hello", "-e", "A=b"],
        &["hello", "-x", "web-1"],
        &["hello", "-d"],
        &["hello", "--dry-run"],
    ] {
        let told = by_them(words);
        assert!(told.starts_with("error: the functions run a job as it was pushed") && told.ends_with('2'), "{told}");
    }
    let told = by_them(&["hello", "-t", "Role=a", "-t", "Role=b"]);
    assert!(told.starts_with("error: `-t Role=b` cannot be sent to the functions"), "{told}");
}
