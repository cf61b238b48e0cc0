//! `sshjob next` and the firings that `sshjob jobs` lists.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::schema::assert_valid;

const NIGHTLY: &str = "schedule: \"30 2 * * *\"\ntimezone: Europe/Berlin\nblackout: 2026-03-30/2026-03-30\n";

/// A project of these jobs, each with more than where it runs and what.
fn project(jobs: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("jobs")).unwrap();
    for (name, more) in jobs {
        let text = format!("targets: {{ hosts: web-1 }}\nrun: echo\n{more}");
        fs::write(folder.path().join(format!("jobs/{name}.yaml")), text).unwrap();
    }
    folder
}

fn sshjob(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sshjob")).args(args).current_dir(folder).env_clear().output().unwrap()
}

/// What a command that succeeds writes, to either side.
fn said(folder: &Path, args: &[&str]) -> (String, String) {
    let output = sshjob(folder, args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    (text(output.stdout), text(output.stderr))
}

#[test]
fn firings_of_a_job_tell_zone_and_what_changed_clocks_do_and_what_the_schedule_means() {
    let project = project(&[("nightly", NIGHTLY)]);
    let (spring, nothing) = said(project.path(), &["next", "nightly", "-n", "3", "--from", "2026-03-28"]);
    assert_eq!(
        spring,
        "30 2 * * *: at 02:30 every day (Europe/Berlin)\n\
         TIME                  ZONE  OFFSET  NOTE\n\
         Sat 2026-03-28 02:30  CET   +01:00\n\
         Sun 2026-03-29 03:00  CEST  +02:00  moved: 02:30 does not exist\n\
         Mon 2026-03-30 02:30  CEST  +02:00  blackout 2026-03-30/2026-03-30\n"
    );
    assert_eq!(nothing, "");
    let (autumn, _) = said(project.path(), &["next", "nightly", "-n1", "--from", "2026-10-25T02:30"]);
    assert_eq!(autumn.lines().last().unwrap(), "Sun 2026-10-25 02:30  CEST  +02:00  first of two");
    // From an instant, that instant included.
    let (from, _) = said(project.path(), &["next", "nightly", "-n1", "--from", "2026-06-01T02:30:00+02:00"]);
    assert_eq!(from.lines().last().unwrap(), "Mon 2026-06-01 02:30  CEST  +02:00");
}

#[test]
fn firings_of_all_jobs_come_in_time_order_and_who_does_not_fire_is_named() {
    let project = project(&[
        ("hourly", "schedule: [\"@hourly\", \"rate(1 hour)\"]\njitter: 2m\npaused: true\n"),
        ("nightly", NIGHTLY),
        ("never", "schedule: at(2020-01-01T00:00:00)\n"),
        ("asked", ""),
    ]);
    let (text, others) = said(project.path(), &["next", "-n", "4", "--from", "2026-06-01T00:00:00Z"]);
    assert_eq!(
        text,
        "TIME                  ZONE  OFFSET  JOB      SCHEDULE                NOTE\n\
         Mon 2026-06-01 00:00  UTC   +00:00  hourly   every hour; every hour  starts 0.0s later; paused\n\
         Mon 2026-06-01 02:30  CEST  +02:00  nightly  at 02:30 every day\n\
         Mon 2026-06-01 01:00  UTC   +00:00  hourly   every hour; every hour  starts 0.0s later; paused\n\
         Mon 2026-06-01 02:00  UTC   +00:00  hourly   every hour; every hour  starts 0.0s later; paused\n"
    );
    assert_eq!(others, "on demand only: asked\nnever again: never\n");
    assert_eq!(said(project.path(), &["-q", "next", "-n1", "--from", "2026-06-01"]).1, "");
}

#[test]
fn firings_for_machines_are_valid_documents() {
    let project = project(&[("nightly", NIGHTLY), ("asked", "")]);
    let args = ["next", "-n", "3", "--from", "2026-03-29", "-o"];
    let (text, _) = said(project.path(), &[&args[..], &["json"]].concat());
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_valid("next", &document);
    let schedule = json!([{ "expression": "30 2 * * *", "reading": "at 02:30 every day" }]);
    let jobs = json!([
        { "job": "asked", "schedule": [], "timezone": "UTC", "paused": false },
        { "job": "nightly", "schedule": schedule, "timezone": "Europe/Berlin", "paused": false },
    ]);
    assert_eq!(document["jobs"], jobs);
    let moved = json!({
        "job": "nightly",
        "scheduled_for": "2026-03-29T01:00:00Z",
        "due": "2026-03-29T01:00:00Z",
        "local": "2026-03-29T03:00:00+02:00",
        "zone": "CEST",
        "moved_from": "2026-03-29T02:30:00",
        "first_of_two": false,
        "blackout": null,
        "paused": false,
    });
    assert_eq!(document["firings"][0], moved);
    assert_eq!(document["firings"][1]["blackout"], "2026-03-30/2026-03-30");
    let (lines, _) = said(project.path(), &[&args[..], &["ndjson"]].concat());
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["schema"], &lines[0]["moved_from"]), (&json!("sshjob/v1"), &json!("2026-03-29T02:30:00")));
}

#[test]
fn time_that_is_none_is_refused() {
    let project = project(&[("nightly", NIGHTLY)]);
    for bad in ["soon", "2026-03", "2026-03-28T02", "2026-02-30", "2026-03-28T02:30+01:00[Europe/Berlin", "T"] {
        let output = sshjob(project.path(), &["next", "--from", bad]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("a local time (`2026-11-22T08:00`)"), "{bad}");
    }
}

#[test]
fn jobs_beside_a_broken_one_still_tell_their_firings() {
    let project = project(&[("broken", "schedule: \"0 25 * * *\"\n"), ("nightly", NIGHTLY)]);
    let output = sshjob(project.path(), &["next", "-n1", "--from", "2026-06-01"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stdout).unwrap().contains("Mon 2026-06-01 02:30"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("jobs/broken.yaml"));
}

#[test]
fn jobs_tell_their_next_firing_or_why_there_is_none() {
    let project = project(&[
        ("asked", ""),
        ("late", "schedule: at(2999-01-01T08:00:00)\ntimezone: Asia/Kathmandu\n"),
        ("moved", "schedule: at(2999-01-01T08:00:00)\nblackout: 2999-01-01/2999-01-01\n"),
        ("over", "schedule: at(2020-01-01T00:00:00)\n"),
        ("paused", "schedule: \"@hourly\"\npaused: true\n"),
    ]);
    let (text, _) = said(project.path(), &["jobs"]);
    assert_eq!(
        text,
        "NAME    TARGETS  MODE      SCHEDULE                                 NEXT\n\
         asked   web-1    attached                                           on demand\n\
         late    web-1    attached  at(2999-01-01T08:00:00) (Asia/Kathmandu)  Tue 2999-01-01 08:00 +05:45\n\
         moved   web-1    attached  at(2999-01-01T08:00:00)                  never again\n\
         over    web-1    attached  at(2020-01-01T00:00:00)                  never again\n\
         paused  web-1    attached  @hourly                                  paused\n"
    );
    let (document, _) = said(project.path(), &["jobs", "-o", "json"]);
    let document: Value = serde_json::from_str(&document).unwrap();
    let next: Vec<&Value> = document["jobs"].as_array().unwrap().iter().map(|job| &job["next"]).collect();
    assert_eq!(next, [&Value::Null, &json!("2999-01-01T02:15:00Z"), &Value::Null, &Value::Null, &Value::Null]);
}
