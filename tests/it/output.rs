//! A live run, from synthetic events to what people and machines read, compared whole.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, mpsc as gate};

use serde_json::Value;
use sshjob::cli::context::Format;
use sshjob::cli::exit::Exit;
use sshjob::cli::output::console::Console;
use sshjob::cli::output::print::{Options, Shown, print};
use sshjob::domain::layout::Stream;
use sshjob::domain::quantity::Span;
use sshjob::domain::run::RunState;
use sshjob::domain::task::TaskState;
use sshjob::engine::event::{Event, HEAD_BYTES, Head};
use sshjob::engine::records::Runs;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::schema;
use crate::support::memory::Memory;
use crate::support::tale::{Captured, Tale, console, never, ran, verdict};

const RUN: &str = "hello-20261122T221500Z-1f2e3d";

fn options(format: Format) -> Options {
    let (timeout, program) = (Span(Duration::from_mins(5)), Some("sshjob".to_owned()));
    Options { format, group: false, quiet: false, width: 5, awaited: false, timeout, program }
}

/// Shows `events` on `console`.
async fn show(events: Vec<Event>, options: Options, console: Console, runs: &Runs<Memory>) -> Shown {
    let (tell, heard) = mpsc::channel(1);
    let shown = tokio::spawn(print(heard, options, console, runs.clone()));
    for event in events {
        tell.send(event).await.unwrap();
    }
    drop(tell);
    shown.await.unwrap()
}

/// Four hosts: one succeeds, one fails, one cannot be reached, one is tried twice.
async fn mixed() -> (Tale, Vec<Event>) {
    let tale = Tale::of(&Memory::default(), RUN, &["web-1", "web-2", "db-1", "db-2"]).await;
    let [web1, web2, db1, db2] = ["web-1", "web-2", "db-1", "db-2"];
    let states = [TaskState::Succeeded, TaskState::Succeeded, TaskState::Failed, TaskState::Unreachable];
    let web = |n: usize| Arc::clone(&tale.targets[n]);
    let retried = never(TaskState::Unreachable, "connect: connection refused");
    let events = vec![
        tale.started(),
        Event::TaskStarted { target: web(0), attempt: 1 },
        tale.finished(web1, ran(TaskState::Succeeded), b"one\ntwo", b"careful\n"),
        Event::TaskRetried { target: web(1), record: retried, delay: Duration::from_secs(10) },
        tale.finished(db1, ran(TaskState::Failed), b"", b"no space left\n"),
        Event::Stopping { reason: "max_errors exceeded".to_owned() },
        tale.finished(db2, never(TaskState::Unreachable, "connect: no route\x1b[2J to host"), b"", b""),
        tale.finished(web2, ran(TaskState::Succeeded), b"gr\xfc\xdf\n", b""),
        Event::Finished {
            run: Arc::clone(&tale.run),
            verdict: verdict(RunState::Failed, Some("max_errors exceeded: more than 1 did not succeed"), &states),
        },
    ];
    (tale, events)
}

#[tokio::test]
async fn text_of_a_mixed_run_has_results_and_troubles_apart() {
    let (tale, events) = mixed().await;
    let out = Bytes::default();
    let err = Captured::default();
    let console = Console::with(out.clone(), err.clone(), false);
    let shown = show(events, options(Format::Text), console, &tale.runs).await;
    assert_eq!(out.0.lock().unwrap().as_slice(), b"web-1 | one\nweb-1 | two\nweb-2 | gr\xfc\xdf\n");
    insta::assert_snapshot!(err.text(), @r"
    web-1 ! careful
    web-2  unreachable                    connect: connection refused  (attempt 1 in 10.0s)
    db-1 ! no space left
    db-1   failed       exit 1    0.2s
    no more tasks are started: max_errors exceeded
    db-2   unreachable                    connect: no route[2J to host
    hello-20261122T221500Z-1f2e3d failed: 2 succeeded, 1 failed, 1 unreachable of 4 hosts in 3.2s: max_errors exceeded: more than 1 did not succeed
    hint: `sshjob logs hello-20261122T221500Z-1f2e3d --host db-1` shows all of its output
    hint: `sshjob check` with the same hosts and login flags says what stands in the way
    hint: `sshjob retry hello-20261122T221500Z-1f2e3d --failed` runs it again where it did not succeed
    ");
    assert_eq!(shown.exit, Exit::MaxErrors);
}

#[tokio::test]
async fn text_when_quiet_has_results_and_troubles_alone() {
    let (tale, events) = mixed().await;
    let (console, out, err) = console(true);
    let quiet = Options { quiet: true, ..options(Format::Text) };
    show(events, quiet, console, &tale.runs).await;
    // On a terminal what is no text is replaced, not passed on.
    assert_eq!(out.text(), "web-1 | one\nweb-1 | two\nweb-2 | gr\u{fffd}\u{fffd}\n");
    insta::assert_snapshot!(err.text(), @r"
    web-1 ! careful
    db-1 ! no space left
    db-1   failed       exit 1    0.2s
    db-2   unreachable                    connect: no route[2J to host
    ");
}

#[tokio::test]
async fn text_of_output_beyond_the_event_is_read_from_the_store() {
    let tale = Tale::of(&Memory::default(), RUN, &["web-1"]).await;
    let whole = (0..20_000).map(|n| format!("line {n}\n")).collect::<Vec<_>>().concat();
    let (first, second) = whole.as_bytes().split_at(70_001);
    tale.output("web-1", 1, Stream::Out, &[(0, first), (70_001, second)]).await;
    let mut record = ran(TaskState::Succeeded);
    record.stdout_bytes = whole.len() as u64;
    let stdout = Head { bytes: first[..HEAD_BYTES].to_vec(), complete: false };
    let stderr = Head { bytes: Vec::new(), complete: true };
    let finished = Event::TaskFinished { target: Arc::clone(&tale.targets[0]), record, stdout, stderr };
    let (console, out, _) = console(false);
    show(vec![tale.started(), finished], options(Format::Text), console, &tale.runs).await;
    let expected = (0..20_000).map(|n| format!("web-1 | line {n}\n")).collect::<Vec<_>>().concat();
    assert!(out.text() == expected, "{} bytes came out", out.text().len());
}

#[tokio::test]
async fn group_shows_identical_outputs_once() {
    let hosts = ["web-1", "web-2", "web-3", "db-1", "db-2"];
    let tale = Tale::of(&Memory::default(), RUN, &hosts).await;
    let mut events = vec![tale.started()];
    for (host, output) in [("web-3", "6.1\n"), ("db-1", "5.9\n"), ("web-1", "6.1\n"), ("web-2", "6.1\n")] {
        tale.output(host, 1, Stream::Out, &[(0, output.as_bytes())]).await;
        events.push(tale.finished(host, ran(TaskState::Succeeded), output.as_bytes(), b""));
    }
    events.push(tale.finished("db-2", ran(TaskState::Failed), b"", b""));
    let states = [[TaskState::Succeeded; 4].as_slice(), &[TaskState::Failed]].concat();
    let verdict = verdict(RunState::Failed, None, &states);
    events.push(Event::Finished { run: Arc::clone(&tale.run), verdict });
    let (console, out, err) = console(false);
    let group = Options { group: true, ..options(Format::Text) };
    let shown = show(events, group, console, &tale.runs).await;
    insta::assert_snapshot!(out.text(), @r"
    --- web-[1-3] (3 hosts) ---
    6.1
    --- db-1 (1 host) ---
    5.9
    ");
    insta::assert_snapshot!(err.text(), @r"
    db-2 (1 host)  failed  exit 1
    hello-20261122T221500Z-1f2e3d failed: 4 succeeded, 1 failed of 5 hosts in 3.2s
    hint: `sshjob logs hello-20261122T221500Z-1f2e3d --host db-2` shows all of its output
    hint: `sshjob retry hello-20261122T221500Z-1f2e3d --failed` runs it again where it did not succeed
    ");
    assert_eq!(shown.exit, Exit::Failed);
}

#[tokio::test]
async fn json_is_one_valid_document() {
    let (tale, events) = mixed().await;
    let (console, out, err) = console(false);
    show(events, options(Format::Json), console, &tale.runs).await;
    let document: Value = serde_json::from_str(&out.text()).unwrap();
    schema::assert_valid("run", &document);
    assert_eq!(document["counts"], serde_json::json!({"succeeded": 2, "failed": 1, "unreachable": 1}));
    let tasks: Vec<&str> =
        document["tasks"].as_array().unwrap().iter().map(|t| t["instance"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["web-1", "db-1", "db-2", "web-2"]);
    assert_eq!(
        document["tasks"][0],
        serde_json::json!({
            "run": RUN, "instance": "web-1", "address": "127.0.1.1", "state": "succeeded", "reason": null,
            "exit_code": 0, "signal": null, "attempt": 1, "started_at": "2026-11-22T22:15:00Z",
            "finished_at": "2026-11-22T22:15:00.2Z", "duration_ms": 200, "stdout": "one\ntwo", "stderr": "careful\n",
            "stdout_bytes": 7, "stderr_bytes": 8, "truncated": false, "host_key": null
        })
    );
    assert_eq!(document["tasks"][3]["stdout"], "gr\u{fffd}\u{fffd}\n");
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn json_of_a_run_without_verdict_counts_every_target() {
    let (tale, mut events) = mixed().await;
    events.truncate(3);
    let (console, out, _) = console(false);
    let shown = show(events, options(Format::Json), console, &tale.runs).await;
    let document: Value = serde_json::from_str(&out.text()).unwrap();
    schema::assert_valid("run", &document);
    assert_eq!(document["state"], "running");
    assert_eq!(document["counts"], serde_json::json!({"succeeded": 1, "pending": 3}));
    assert_eq!(shown, Shown { verdict: None, exit: Exit::Unavailable });
}

#[tokio::test]
async fn ndjson_tells_every_event_as_one_valid_line() {
    let (tale, events) = mixed().await;
    let (console, out, err) = console(false);
    show(events, options(Format::Ndjson), console, &tale.runs).await;
    let lines: Vec<Value> = out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        schema::assert_valid("event", line);
    }
    let told: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let expected = [
        "run_started",
        "task_started",
        "task_finished",
        "task_retried",
        "task_finished",
        "stopping",
        "task_finished",
        "task_finished",
        "run_finished",
    ];
    assert_eq!(told, expected);
    assert_eq!(lines[3]["delay_ms"], 10_000);
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn reader_that_goes_away_is_quiet_and_the_run_goes_on() {
    let (tale, events) = mixed().await;
    let err = Captured::default();
    let shown = show(events, options(Format::Ndjson), Console::with(Gone, err.clone(), false), &tale.runs).await;
    assert_eq!(err.text(), "");
    assert_eq!(shown.exit, Exit::MaxErrors);
}

#[tokio::test]
async fn disk_that_is_full_is_told_once_and_costs_the_exit_code() {
    let tale = Tale::of(&Memory::default(), RUN, &["web-1"]).await;
    let done = verdict(RunState::Succeeded, None, &[TaskState::Succeeded]);
    let events = vec![
        tale.started(),
        tale.finished("web-1", ran(TaskState::Succeeded), b"a\n", b""),
        Event::Finished { run: Arc::clone(&tale.run), verdict: done },
    ];
    let err = Captured::default();
    let shown = show(events, options(Format::Ndjson), Console::with(Full, err.clone(), false), &tale.runs).await;
    assert_eq!(err.text(), "error: cannot write to standard output: no storage space\n");
    assert_eq!(shown.exit, Exit::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_does_not_hold_up_the_run_and_misses_nothing() {
    let hosts: Vec<String> = (0..300).map(|n| format!("web-{n}")).collect();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let tale = Tale::of(&Memory::default(), RUN, &names).await;
    let line = format!("{}\n", "x".repeat(HEAD_BYTES - 1));
    let (open, opened) = gate::channel();
    let out = Captured::default();
    let console = Console::with(Slow { opened: Some(opened), out: out.clone() }, Captured::default(), false);
    let (tell, heard) = mpsc::channel(1);
    let shown = tokio::spawn(print(heard, options(Format::Text), console, tale.runs.clone()));
    tell.send(tale.started()).await.unwrap();
    for host in &names {
        tale.output(host, 1, Stream::Out, &[(0, line.as_bytes())]).await;
        // Were the printer to wait for its reader, this would never return.
        tell.send(tale.finished(host, ran(TaskState::Succeeded), line.as_bytes(), b"")).await.unwrap();
    }
    open.send(()).unwrap();
    drop(tell);
    shown.await.unwrap();
    let expected = names.iter().map(|host| format!("{host} | {line}")).collect::<Vec<_>>().concat();
    assert!(out.text() == expected, "{} of {} bytes came out", out.text().len(), expected.len());
}

/// What was written, whatever it is.
#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe without a reader.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file on a full disk.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pager that takes nothing before it is told to.
struct Slow {
    opened: Option<gate::Receiver<()>>,
    out: Captured,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(opened) = self.opened.take() {
            opened.recv().unwrap();
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
