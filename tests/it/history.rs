//! Looking back: `runs`, `status`, `logs` and `prune` on records that were written by hand, compared whole.

use std::time::Duration;

use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sshjob::cli::Cli;
use sshjob::cli::command::{Command, logs, prune, runs, status};
use sshjob::cli::exit::{Exit, Fail};
use sshjob::domain::layout::{self, Key, RunKeys, Stream};
use sshjob::domain::run::RunState;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::history::{Unresolved, ids, load, resolve};
use sshjob::engine::records::Runs;
use sshjob::port::{Store, StoreError};

use crate::schema;
use crate::support::memory::{Fault, Memory};
use crate::support::tale::{Captured, Tale, console, never, ran, start};

const RUN: &str = "hello-20261122T221500Z-1f2e3d";

/// What a command line wrote: standard output, standard error, and how it ended.
struct Said {
    out: String,
    err: String,
    end: Result<Exit, Fail>,
}

impl Said {
    fn documents(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs a command that looks back, as if typed, on `store`, an hour after the tale.
async fn type_in(store: &Memory, line: &str) -> Said {
    let (mut console, out, err) = console(false);
    let end = command(&Runs::new(store.clone()), line, &mut console).await;
    let text = |captured: &Captured| captured.text();
    Said { out: text(&out), err: text(&err), end }
}

async fn command(
    store: &Runs<Memory>,
    line: &str,
    console: &mut sshjob::cli::output::console::Console,
) -> Result<Exit, Fail> {
    let cli = Cli::parse_from(std::iter::once("sshjob").chain(line.split_whitespace()));
    let (format, now) = (cli.global.output, start() + SignedDuration::from_hours(1));
    match &cli.command {
        Command::Runs(args) => runs::show(args, format, store, console, now).await,
        Command::Status(args) => status::show(args, format, None, store, console).await,
        Command::Logs(args) => logs::show(args, format, store, console).await,
        Command::Prune(args) => prune::show(args, &cli.global, store, console, now).await,
        other => panic!("{other:?} does not look back"),
    }
}

/// A finished run on four hosts, with output.
async fn finished(store: &Memory, id: &str) -> Tale {
    let tale = Tale::of(store, id, &["web-1", "web-2", "db-1", "db-2"]).await;
    let mut web = ran(TaskState::Succeeded);
    (web.stdout_bytes, web.stderr_bytes) = (8, 8);
    let mut again = ran(TaskState::Failed);
    (again.attempt, again.stdout_bytes) = (2, 6);
    tale.output("web-1", 1, Stream::Out, &[(0, b"one\n"), (4, b"two\n")]).await;
    tale.output("web-1", 1, Stream::Err, &[(0, b"careful\n")]).await;
    tale.output("db-1", 1, Stream::Out, &[(0, b"first\n")]).await;
    tale.output("db-1", 2, Stream::Out, &[(0, b"second")]).await;
    let refused = never(TaskState::Unreachable, "connect: connection refused");
    let quiet = ran(TaskState::Succeeded);
    tale.outcomes(&[("web-1", web), ("web-2", quiet), ("db-1", again), ("db-2", refused)]).await;
    let states = [TaskState::Succeeded, TaskState::Succeeded, TaskState::Failed, TaskState::Unreachable];
    tale.ended(RunState::Failed, None, &states).await;
    tale
}

#[tokio::test]
async fn runs_are_listed_newest_first_with_what_is_wrong() {
    let store = Memory::default();
    finished(&store, RUN).await;
    let live = Tale::of(&store, "backup-20261122T223000Z", &["a", "b", "c"]).await;
    live.outcomes(&[("a", ran(TaskState::Running)), ("b", ran(TaskState::Succeeded))]).await;
    Tale::claimed(&store, "backup-20261122T230000Z", &[]).await;
    let broken = RunKeys::new(&"backup-20261121T223000Z".parse().unwrap()).run();
    let _ = store.create(&broken, b"{\"schema\":".to_vec()).await.unwrap();
    let said = type_in(&store, "runs").await;
    insta::assert_snapshot!(said.out, @r"
    RUN                            STATE     STARTED               TOOK  TASKS                                 BY
    backup-20261122T230000Z        planning  2026-11-22T22:15:00Z        no tasks                              alice
    backup-20261122T223000Z        running   2026-11-22T22:15:00Z        1 succeeded, 1 running, 1 pending     alice
    hello-20261122T221500Z-1f2e3d  failed    2026-11-22T22:15:00Z  3.2s  2 succeeded, 1 failed, 1 unreachable  alice
    ");
    insta::assert_snapshot!(said.err, @"warning: `runs/backup/backup-20261121T223000Z/run.json` is damaged: EOF while parsing a value at line 1 column 10");
    assert_eq!(said.end, Ok(Exit::Success));

    let said = type_in(&store, "runs hello -o json").await;
    let document = &said.documents()[0];
    schema::assert_valid("runs", document);
    assert_eq!(document["runs"].as_array().unwrap().len(), 1);
    assert_eq!(type_in(&store, "runs --since 40m -o ndjson").await.documents().len(), 1);
    assert_eq!(type_in(&store, "runs -n 2 -o ndjson").await.documents().len(), 2);
    assert_eq!(type_in(&store, "runs other").await.err, "no runs\n");
}

#[tokio::test]
async fn runs_with_thousands_of_pieces_are_listed_in_few_calls() {
    let store = Memory::default();
    let tale = finished(&store, RUN).await;
    finished(&store, "hello-20261122T221501Z").await;
    for offset in 0..2500 {
        tale.output("db-2", 1, Stream::Out, &[(offset, b"x")]).await;
    }
    let ids = ids(&tale.runs, None).await.unwrap();
    assert_eq!(ids.iter().map(sshjob::domain::id::RunId::as_str).collect::<Vec<_>>(), ["hello-20261122T221501Z", RUN]);
}

#[tokio::test]
async fn run_is_found_by_id_beginning_and_last() {
    let store = Memory::default();
    let runs = Runs::new(store.clone());
    assert!(matches!(resolve(&runs, "last").await, Err(Unresolved::None)));
    for id in ["hello-20261122T221500Z", "hello-20261122T231500Z", "backup-20261122T225000Z"] {
        Tale::claimed(&store, id, &[]).await;
    }
    for (name, expected) in [
        ("last", "hello-20261122T231500Z"),
        ("hello-20261122T221500Z", "hello-20261122T221500Z"),
        ("hello-20261122T23", "hello-20261122T231500Z"),
        ("b", "backup-20261122T225000Z"),
    ] {
        assert_eq!(resolve(&runs, name).await.unwrap().as_str(), expected, "{name}");
    }
    let fail = type_in(&store, "status hello-").await.end.unwrap_err();
    insta::assert_snapshot!(format!("{}\n{}", fail.message, fail.hint.unwrap()), @r"
    `hello-` is the beginning of several run ids
    give more of the id; the newest are
      hello-20261122T231500Z
      hello-20261122T221500Z
    ");
    let fail = type_in(&store, "status helo-20261122T221500Z").await.end.unwrap_err();
    insta::assert_snapshot!(format!("{}\n{}", fail.message, fail.hint.unwrap()), @r"
    there is no run `helo-20261122T221500Z`
    `hello-20261122T221500Z` is the most similar; `sshjob runs` lists all
    ");
    assert_eq!(fail.exit, Exit::Usage);
}

/// Ids of one second sort by their tails, which are hashes: `last` was any of them.
#[tokio::test]
async fn runs_of_one_second_are_told_in_the_order_in_which_they_started() {
    let store = Memory::default();
    let runs = Runs::new(store.clone());
    for (tail, milliseconds) in [("aa", 200), ("bb", 900), ("cc", 100)] {
        let at = start() + Duration::from_millis(milliseconds);
        Tale::claimed_at(&store, &format!("hello-20261122T221500Z-{tail}"), &[], at).await;
    }
    assert_eq!(resolve(&runs, "last").await.unwrap().as_str(), "hello-20261122T221500Z-bb");
    let listed = async |number| {
        let documents = type_in(&store, &format!("runs -n {number} -o ndjson")).await.documents();
        let tails = documents.iter().map(|run| run["run"].as_str().unwrap()[23..].to_owned());
        tails.collect::<Vec<_>>()
    };
    assert_eq!(listed(50).await, ["bb", "aa", "cc"]);
    assert_eq!(listed(1).await, ["bb"]);
}

#[tokio::test]
async fn status_tells_troubles_first() {
    let store = Memory::default();
    finished(&store, RUN).await;
    let said = type_in(&store, "status last").await;
    insta::assert_snapshot!(said.out, @r"
    hello-20261122T221500Z-1f2e3d failed: 2 succeeded, 1 failed, 1 unreachable of 4 hosts in 3.2s
    started 2026-11-22T22:15:00Z by alice

    HOST   ADDRESS    STATE        ENDED   TOOK  ATTEMPT  REASON
    db-1   127.0.1.1  failed       exit 1  0.2s  2
    db-2   127.0.1.1  unreachable                         connect: connection refused
    web-1  127.0.1.1  succeeded    exit 0  0.2s
    web-2  127.0.1.1  succeeded    exit 0  0.2s
    ");
    assert_eq!(said.end, Ok(Exit::Failed));

    let said = type_in(&store, "status -o json").await;
    let document: Value = serde_json::from_str(&said.out).unwrap();
    schema::assert_valid("run", &document);
    assert_eq!(document["tasks"][0]["stdout"], "one\ntwo\n");
    assert_eq!(document["tasks"][2]["stdout"], "second");

    let said = type_in(&store, "status -o ndjson").await;
    for document in &said.documents() {
        schema::assert_valid("event", document);
    }
    assert_eq!(said.documents().len(), 6);
}

#[tokio::test]
async fn status_of_a_live_run_counts_every_target() {
    let store = Memory::default();
    let hosts: Vec<String> = (1..=130).map(|n| format!("web-{n}")).collect();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let tale = Tale::of(&store, RUN, &names).await;
    let mut tasks: Vec<(&str, TaskRecord)> =
        names[..60].iter().map(|host| (*host, ran(TaskState::Succeeded))).collect();
    tasks.push(("web-61", ran(TaskState::Running)));
    tale.outcomes(&tasks).await;
    let said = type_in(&store, "status").await;
    insta::assert_snapshot!(said.out, @r"
    hello-20261122T221500Z-1f2e3d running: 60 succeeded, 1 running, 69 pending of 130 hosts
    started 2026-11-22T22:15:00Z by alice

    HOST    ADDRESS    STATE
    web-61  127.0.1.1  running

    pending on 69 hosts: web-[62-130]
    succeeded on 60 hosts: web-[1-60]
    ");
    assert_eq!(said.end, Ok(Exit::Success));
}

#[tokio::test]
async fn status_of_a_plan_without_its_targets_still_counts_them() {
    let store = Memory::default();
    let tale = Tale::of(&store, RUN, &["a", "b", "c"]).await;
    store.remove(&RunKeys::new(&tale.run.run).targets(1)).await.unwrap();
    let view = load(&tale.runs, &tale.run.run).await.unwrap().unwrap();
    assert_eq!((view.tasks.len(), view.untold, view.counts().total()), (2, 1, 3));
    let said = type_in(&store, "status -o json").await;
    let document: Value = serde_json::from_str(&said.out).unwrap();
    schema::assert_valid("run", &document);
    assert_eq!(document["counts"], serde_json::json!({"pending": 3}));
}

#[tokio::test]
async fn logs_mark_every_line_with_its_host() {
    let store = Memory::default();
    finished(&store, RUN).await;
    let said = type_in(&store, "logs").await;
    assert_eq!(said.out, "web-1 | one\nweb-1 | two\ndb-1 | second\n");
    assert_eq!(said.err, "web-1 ! careful\n");
    assert_eq!(said.end, Ok(Exit::Success));
    assert_eq!(type_in(&store, "logs -f").await.out, said.out);
    assert_eq!(type_in(&store, "logs --stderr").await.out, "web-1 ! careful\n");
    assert_eq!(type_in(&store, "logs --host db-*").await.out, "db-1 | second\n");
    let all = "db-1 (attempt 1) | first\ndb-1 (attempt 2) | second\n";
    assert_eq!(type_in(&store, "logs last --host db-1 --all-attempts").await.out, all);
    assert_eq!(type_in(&store, "logs last --host db-1 --all-attempts -f").await.out, all);
    assert_eq!(type_in(&store, "logs last --host db-1 --raw").await.out, "second");

    let fail = type_in(&store, "logs last --host web1").await.end.unwrap_err();
    insta::assert_snapshot!(format!("{}\n{}", fail.message, fail.hint.unwrap()), @r"
    run `hello-20261122T221500Z-1f2e3d` has no host `web1`
    `web-1` is the most similar; `sshjob status hello-20261122T221500Z-1f2e3d` lists all
    ");
    let fail = type_in(&store, "logs last --host web-* --raw").await.end.unwrap_err();
    assert_eq!(fail.message, "`--raw` shows one host; 2 match");
}

#[tokio::test]
async fn logs_for_machines_hold_every_piece() {
    let store = Memory::default();
    finished(&store, RUN).await;
    let said = type_in(&store, "logs -o json").await;
    let list: Value = serde_json::from_str(&said.out).unwrap();
    schema::assert_valid("output", &list);
    let said = type_in(&store, "logs -o ndjson").await;
    let pieces = said.documents();
    for piece in &pieces {
        schema::assert_valid("piece", piece);
    }
    assert_eq!(list["output"].as_array().unwrap(), &pieces);
    let told: Vec<_> =
        pieces.iter().map(|piece| (piece["offset"].as_u64().unwrap(), piece["text"].as_str().unwrap())).collect();
    assert_eq!(told, [(0, "one\n"), (4, "two\n"), (0, "careful\n"), (0, "second")]);
}

#[tokio::test]
async fn logs_with_a_gap_say_what_is_missing() {
    let store = Memory::default();
    let tale = Tale::of(&store, RUN, &["web-1"]).await;
    tale.output("web-1", 1, Stream::Out, &[(0, b"one\ntw"), (10, b"four\n")]).await;
    let mut record = ran(TaskState::Succeeded);
    record.stdout_bytes = 20;
    tale.outcomes(&[("web-1", record)]).await;
    tale.ended(RunState::Succeeded, None, &[TaskState::Succeeded]).await;
    let prefix = "runs/hello/hello-20261122T221500Z-1f2e3d/output/web-1/1.out.";
    for line in ["logs", "logs -f"] {
        let said = type_in(&store, line).await;
        assert_eq!(said.out, "web-1 | one\nweb-1 | tw\nweb-1 | four\n", "{line}");
        let expected = format!(
            "warning: bytes 6 to 9 of `{prefix}*` are missing in the store\n\
             warning: bytes 15 to 19 of `{prefix}*` are missing in the store\n"
        );
        assert_eq!(said.err, expected, "{line}");
        assert_eq!(said.end.unwrap_err().message, "some of the output is missing");
    }
    let pieces = type_in(&store, "logs -o ndjson").await.documents();
    for piece in &pieces {
        schema::assert_valid("piece", piece);
    }
    let told: Vec<_> =
        pieces.iter().map(|piece| (piece["offset"].as_u64().unwrap(), piece["missing"] == true)).collect();
    assert_eq!(told, [(0, false), (6, true), (10, false), (15, true)]);
}

#[tokio::test]
async fn logs_with_overlapping_pieces_are_damaged() {
    let store = Memory::default();
    let tale = finished(&store, RUN).await;
    tale.output("web-1", 1, Stream::Out, &[(2, b"x")]).await;
    let fail = type_in(&store, "logs").await.end.unwrap_err();
    let key = format!("runs/hello/{RUN}/output/web-1/1.out.00000000000000000002");
    assert_eq!(
        fail.message,
        format!("`{key}` is damaged: it starts at byte 2, before byte 4 where the piece before it ends")
    );
}

#[tokio::test(start_paused = true)]
async fn logs_followed_show_what_comes_until_the_run_is_finished() {
    let store = Memory::default();
    let tale = Tale::of(&store, RUN, &["web-1", "db-1"]).await;
    tale.output("web-1", 1, Stream::Out, &[(0, b"one\ntw")]).await;
    let records = Runs::new(store.clone());
    tale.outcomes(&[("web-1", ran(TaskState::Running))]).await;
    let (mut console, out, _) = console(false);
    let following = tokio::spawn(async move { command(&records, "logs -f", &mut console).await });
    while out.text() != "web-1 | one\n" {
        tokio::time::advance(std::time::Duration::from_millis(100)).await;
    }
    tale.output("web-1", 1, Stream::Out, &[(6, b"o\n")]).await;
    while out.text() != "web-1 | one\nweb-1 | two\n" {
        tokio::time::advance(std::time::Duration::from_millis(100)).await;
    }
    tale.ended(RunState::Failed, None, &[TaskState::Lost, TaskState::Skipped]).await;
    assert_eq!(following.await.unwrap(), Ok(Exit::Success));
}

/// The keys of `store` that belong to `run`.
fn keys_of(store: &Memory, run: &str) -> Vec<String> {
    store.objects().into_iter().map(|(key, _)| key).filter(|key| key.contains(run)).collect()
}

#[tokio::test]
async fn prune_removes_old_runs_and_scripts_that_nobody_uses() {
    let store = Memory::default();
    let tale = finished(&store, RUN).await;
    let said = type_in(&store, "prune --older-than 2h").await;
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", "removed 0 runs and 0 scripts\n"));

    let said = type_in(&store, "prune --older-than 30m --dry-run").await;
    insta::assert_snapshot!(said.out, @r"
    RUN                            STATE   FINISHED              TASKS
    hello-20261122T221500Z-1f2e3d  failed  2026-11-22T22:15:03Z  2 succeeded, 1 failed, 1 unreachable
    ");
    assert_eq!(said.err, "would remove 1 run and 1 script\n");
    assert!(!keys_of(&store, RUN).is_empty());

    let said = type_in(&store, "prune --older-than 30m -o json").await;
    schema::assert_valid("prune", &said.documents()[0]);
    assert_eq!(said.documents()[0]["scripts"], serde_json::json!([tale.run.script.sha256]));
    assert_eq!(store.objects(), []);
}

#[tokio::test]
async fn prune_keeps_what_is_live_new_or_asked_to_be_kept() {
    let store = Memory::default();
    for id in ["hello-20261122T221500Z", "hello-20261122T221600Z", "hello-20261122T221700Z"] {
        finished(&store, id).await;
    }
    Tale::of(&store, "hello-20261122T221400Z", &["a"]).await;
    let said = type_in(&store, "prune").await;
    assert_eq!(said.err, "removed 0 runs and 0 scripts\n");
    // The live run, though older, still needs the script that all of them share.
    let said = type_in(&store, "prune --keep 1").await;
    assert_eq!(said.err, "removed 2 runs and 0 scripts\n");
    let left = ids(&Runs::new(store.clone()), None).await.unwrap();
    let left: Vec<&str> = left.iter().map(sshjob::domain::id::RunId::as_str).collect();
    assert_eq!(left, ["hello-20261122T221700Z", "hello-20261122T221400Z"]);
}

#[tokio::test]
async fn prune_leaves_every_script_where_a_run_is_damaged_or_being_claimed() {
    let damaged = Memory::default();
    finished(&damaged, RUN).await;
    let broken = RunKeys::new(&"backup-20261121T223000Z".parse().unwrap()).run();
    let _ = damaged.create(&broken, b"{".to_vec()).await.unwrap();
    let claimed = Memory::default();
    finished(&claimed, RUN).await;
    let _ = claimed.create(&layout::active(&"backup-20261122T223000Z".parse().unwrap()), b"{}".to_vec()).await.unwrap();
    for store in [damaged, claimed] {
        let said = type_in(&store, "prune --keep 0").await;
        assert!(said.err.ends_with("removed 1 run and 0 scripts\n"), "{}", said.err);
        assert!(store.objects().iter().any(|(key, _)| key.starts_with("blobs/")));
    }
}

#[tokio::test]
async fn prune_removes_a_script_that_never_had_a_run_after_a_day() {
    let store = Memory::default();
    let _ = store.create(&layout::blob("ab"), b"orphan".to_vec()).await.unwrap();
    let runs = Runs::new(store.clone());
    let policy = sshjob::engine::prune::Policy { older_than: None, keep: 0 };
    let at = |hours: i64| -> Timestamp { start() + SignedDuration::from_hours(hours) };
    for (hours, expected) in [(0, 0), (23, 0), (24, 1)] {
        let old = sshjob::engine::prune::prune(&runs, policy, at(hours), false).await.unwrap();
        assert_eq!(old.scripts.len(), expected, "after {hours} hours");
    }
    assert!(store.get(&layout::blob("ab")).await.unwrap().is_none());
}

#[tokio::test]
async fn prune_that_dies_anywhere_leaves_nothing_that_lies() {
    let mut deaths = 0;
    loop {
        let first = Memory::default();
        let tale = finished(&first, RUN).await;
        let before = load(&tale.runs, &tale.run.run).await.unwrap();
        let machine = first.reboot().with_fault(deaths + 1, Fault::CrashAfter);
        tokio::select! {
            said = type_in(&machine, "prune --keep 0") => {
                assert_eq!(said.end, Ok(Exit::Success));
                assert_eq!(first.objects(), []);
                break;
            }
            () = machine.crashed() => {}
        }
        deaths += 1;
        // Either the run is there, whole, or it is in no list and nothing of it is told.
        let after = first.reboot();
        let runs = Runs::new(after.clone());
        let loaded = load(&runs, &tale.run.run).await.unwrap();
        assert!(loaded.is_none() || loaded == before, "after {deaths} writes: {loaded:?}");
        assert!(loaded.is_some() || type_in(&after, "runs").await.err == "no runs\n");
        type_in(&after, "prune --keep 0").await.end.unwrap();
        assert_eq!(keys_of(&after, RUN), Vec::<String>::new(), "after {deaths} writes");
    }
    assert!(deaths > 10, "only {deaths} writes seen");
}

#[tokio::test]
async fn records_that_are_damaged_name_their_key() {
    let store = Memory::default();
    let tale = Tale::of(&store, RUN, &["a"]).await;
    let key = Key::parse("runs/hello/hello-20261122T221500Z-1f2e3d/plan.json").unwrap();
    store.remove(&key).await.unwrap();
    let _ = store.create(&key, br#"{"batches":[4294967295,4294967295],"waves":[],"max_concurrency":1}"#.to_vec()).await;
    let error = load(&tale.runs, &tale.run.run).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { at, .. } if at == key.as_str()));
    assert_eq!(
        error.to_string(),
        format!("`{key}` is damaged: 8589934590 tasks in 2 batches; a run has at most 1000000")
    );
}

#[tokio::test]
async fn status_of_a_lost_task_counts_no_less_than_it_shows() {
    let store = Memory::default();
    let tale = Tale::of(&store, RUN, &["web-1"]).await;
    tale.output("web-1", 1, Stream::Out, &[(0, b"one\ntwo\n")]).await;
    tale.outcomes(&[("web-1", TaskRecord { stdout_bytes: 0, stderr_bytes: 0, ..ran(TaskState::Lost) })]).await;
    tale.ended(RunState::Failed, None, &[TaskState::Lost]).await;
    let document: serde_json::Value = serde_json::from_str(&type_in(&store, "status -o json").await.out).unwrap();
    let task = &document["tasks"][0];
    assert_eq!((task["stdout"].as_str(), task["stdout_bytes"].as_u64()), (Some("one\ntwo\n"), Some(8)));
    assert_eq!(task["stderr_bytes"], 0);
}
