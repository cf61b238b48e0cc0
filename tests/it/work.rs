//! Runs on real sshd hosts: each task ends in its own state within its deadline, and nothing starts twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sshjob::adapter::dir::Dir;
use sshjob::domain::job::{Job, Source};
use sshjob::domain::quantity::{Amount, ByteSize, Span};
use sshjob::domain::run::RunState;
use sshjob::domain::task::TaskState;
use sshjob::engine::clock::Clock;
use sshjob::engine::gate::Stop;
use sshjob::engine::records::Runs;
use sshjob::engine::start::start;
use tokio::sync::Notify;

use crate::support::fault::{Fault, Faulty};
use crate::support::key::{self, Login};
use crate::support::rig::{self, Done};
use crate::support::sshd::{Spec, Sshd, SshdFleet};

struct Bench {
    _folder: tempfile::TempDir,
    store: Dir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Dir::open(folder.path().join("store")).unwrap();
        Self { _folder: folder, store }
    }

    async fn run(&self, job: Job, addresses: &[SocketAddr], login: &Login) -> Done {
        rig::run(&self.store, rig::request(job, addresses, "one"), login).await.unwrap()
    }

    /// All bytes of a stream of the first attempt on `address`, from the store.
    async fn output(&self, done: &Done, address: SocketAddr, stream: sshjob::domain::layout::Stream) -> Vec<u8> {
        use sshjob::port::Store as _;
        let keys = sshjob::domain::layout::RunKeys::new(&done.started.run.run);
        let prefix = keys.output_prefix(&rig::target(address).instance, 1, stream);
        let mut bytes = Vec::new();
        for key in self.store.list(&prefix, None, 10_000).await.unwrap() {
            bytes.extend(self.store.get(&key).await.unwrap().unwrap().bytes);
        }
        bytes
    }
}

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

#[tokio::test(flavor = "multi_thread")]
async fn script_on_every_host_succeeds_and_its_output_is_kept() {
    let (fleet, bench) = (SshdFleet::same(5), Bench::new());
    let job = rig::script("echo hello from $SSHJOB_INSTANCE; echo trouble >&2");
    let done = bench.run(job, &fleet.addresses(), fleet.login()).await;
    for (instance, record, output) in done.tasks() {
        assert_eq!((record.state, record.reason), (TaskState::Succeeded, None), "{instance}");
        assert_eq!(output, format!("hello from {instance}\n"));
        assert_eq!((record.stdout_bytes, record.stderr_bytes, record.attempt), (output.len() as u64, 8, 1));
    }
    assert_eq!(done.driven.verdict.as_ref().unwrap().counts.of(TaskState::Succeeded), 5);
    assert_eq!(done.driven.verdict.as_ref().unwrap().state, RunState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_hosts_each_in_its_own_trouble_end_each_in_their_own_state() {
    let (fleet, bench, stranger) = (SshdFleet::same(25), Bench::new(), Login::fresh());
    let changed: Vec<Sshd> = (0..3).map(|_| Sshd::start(Spec::accepting(fleet.login().public()))).collect();
    let refusing: Vec<Sshd> = (0..2).map(|_| Sshd::start(Spec::accepting(stranger.public()))).collect();
    let faulty =
        |fault: Fault, count: usize| -> Vec<Faulty> { (0..count).map(|_| Faulty::start(fault.clone())).collect() };
    let troubled = [
        (faulty(Fault::Refuses, 3), TaskState::Unreachable, "connect: connection refused"),
        (faulty(Fault::Drops, 3), TaskState::Unreachable, "connect: no answer within 2s"),
        (faulty(Fault::Silent, 3), TaskState::Unreachable, "SSH handshake: no answer within 2s"),
        (faulty(Fault::HangsInHandshake, 2), TaskState::Unreachable, "SSH handshake: no answer within 2s"),
        (faulty(Fault::HangsInLogin, 2), TaskState::Unreachable, "authentication: no answer within 2s"),
        (faulty(Fault::HangsAfterLogin, 2), TaskState::Unreachable, "opening a channel: no answer within 2s"),
        (faulty(Fault::HangsBeforeCommand, 1), TaskState::Lost, "connection"),
        (faulty(Fault::RejectsKey, 2), TaskState::AuthFailed, "the host refuses the key SHA256:"),
        (faulty(Fault::ClosesWithoutStatus, 2), TaskState::Lost, "connection"),
    ];
    let mut addresses = fleet.addresses();
    let failing: Vec<SocketAddr> = addresses.split_off(20);
    let names = failing.iter().map(|at| rig::target(*at).instance.to_string()).collect::<Vec<_>>().join(" ");

    // A first run pins the keys of hosts that then come back with others.
    let first = changed.iter().map(Sshd::address).collect::<Vec<_>>();
    let pinned =
        rig::run(&bench.store, rig::request(rig::script("true"), &first, "first"), fleet.login()).await.unwrap();
    assert_eq!(pinned.driven.verdict.as_ref().unwrap().state, RunState::Succeeded);
    let mut changed = changed;
    for host in &mut changed {
        host.restart(|spec| spec.host_key = key::fresh());
    }

    let mut job = rig::script(r#"case " $FAILING " in *" $SSHJOB_INSTANCE "*) exit 3 ;; esac; echo fine"#);
    job.env.insert("FAILING".to_owned(), names);
    job.login.connect_timeout = seconds(2);
    job.rollout.max_concurrency = Amount::Count(100);
    let mut all = addresses.clone();
    all.extend(&failing);
    all.extend(changed.iter().chain(&refusing).map(Sshd::address));
    all.extend(troubled.iter().flat_map(|(hosts, _, _)| hosts.iter().map(Faulty::address)));
    assert_eq!(all.len(), 50);
    let done = bench.run(job, &all, fleet.login()).await;

    for address in &addresses {
        assert_eq!(done.state(*address), (TaskState::Succeeded, String::new()));
    }
    for address in &failing {
        assert_eq!(done.state(*address), (TaskState::Failed, String::new()));
    }
    for host in &changed {
        let (state, reason) = done.state(host.address());
        assert_eq!(state, TaskState::HostKeyRejected, "{reason}");
        assert_eq!(reason.matches("SHA256:").count(), 2, "both fingerprints: {reason}");
    }
    for host in &refusing {
        assert_eq!(done.state(host.address()).0, TaskState::AuthFailed);
    }
    for (hosts, expected, why) in &troubled {
        for host in hosts {
            let (state, reason) = done.state(host.address());
            assert_eq!(state, *expected, "{reason}");
            assert!(reason.contains(why), "{reason:?} says {why:?}");
        }
    }
    let counts = &done.driven.verdict.as_ref().unwrap().counts;
    let expected = [
        (TaskState::Succeeded, 20),
        (TaskState::Failed, 5),
        (TaskState::Unreachable, 15),
        (TaskState::AuthFailed, 4),
        (TaskState::HostKeyRejected, 3),
        (TaskState::Lost, 3),
    ];
    assert_eq!(counts.iter().collect::<Vec<_>>(), expected);
    assert_eq!(counts.total(), 50);
    assert_eq!(done.driven.verdict.as_ref().unwrap().state, RunState::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_every_kind_end_as_their_author_meant() {
    use sshjob::domain::layout::Stream;
    let fleet = SshdFleet::same(1);
    let address = fleet.addresses()[0];
    let long = format!("#!/bin/sh\n{}echo the end\n", "# a line that makes the script long\n".repeat(30_000));
    assert!(long.len() > 1_000_000);
    let cases: [(&str, &str, &str); 9] = [
        ("sh", "#!/bin/sh\necho $0 | grep -c script", "1\n"),
        ("bash", "#!/bin/bash\n[[ a == a ]] && echo ${BASH_VERSION:+bash}", "bash\n"),
        ("python", "#!/usr/bin/env python3\nprint(sum(range(10)))", "45\n"),
        ("no interpreter line", "echo plain; exit 0", "plain\n"),
        ("long", &long, "the end\n"),
        ("reads stdin", "#!/bin/sh\ncat; echo \"end of file: $?\"", "end of file: 0\n"),
        ("background child", "#!/bin/sh\nsleep 300 &\necho done", "done\n"),
        ("quotes", r#"printf '%s|' "a'b" 'c"d' '$HOME' "`echo e`"; echo"#, "a'b|c\"d|$HOME|e|\n"),
        ("unicode", "echo 'größe ☃ \u{1F600}'", "größe ☃ \u{1F600}\n"),
    ];
    for (name, text, expected) in cases {
        let bench = Bench::new();
        let done = bench.run(rig::script(text), &[address], fleet.login()).await;
        let (state, reason) = done.state(address);
        assert_eq!(state, TaskState::Succeeded, "{name}: {reason} {}", done.tasks()[0].2);
        assert_eq!(String::from_utf8_lossy(&bench.output(&done, address, Stream::Out).await), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_variables_of_any_content_arrive_byte_for_byte() {
    use sshjob::domain::layout::Stream;
    let (fleet, bench) = (SshdFleet::same(1), Bench::new());
    let address = fleet.addresses()[0];
    let nasty =
        ["", "-n", "a b", "'", "\"", "\\", "$HOME", "`id`", "*", "!", "new\nline", "größe\t☃", &"x".repeat(100_000)];
    let words = ["/usr/bin/printf", "%s\\0"].into_iter().chain(nasty).map(str::to_owned).collect();
    let done = bench.run(rig::job(Source::Command(words)), &[address], fleet.login()).await;
    assert_eq!(done.state(address).0, TaskState::Succeeded);
    let expected: Vec<u8> = nasty.iter().flat_map(|word| word.bytes().chain([0])).collect();
    assert!(bench.output(&done, address, Stream::Out).await == expected);

    let mut job = rig::script(
        "#!/usr/bin/env python3\nimport os\nfor n in range(13): os.write(1, os.environb[b'V%d' % n] + b'\\0')",
    );
    job.env = nasty.iter().enumerate().map(|(n, value)| (format!("V{n}"), (*value).to_owned())).collect();
    let done = rig::run(&bench.store, rig::request(job, &[address], "two"), fleet.login()).await.unwrap();
    assert_eq!(done.state(address).0, TaskState::Succeeded);
    assert!(bench.output(&done, address, Stream::Out).await == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_status_and_signal_are_kept_apart() {
    let fleet = SshdFleet::same(1);
    let address = fleet.addresses()[0];
    for (text, code, signal) in
        [("exit 137", Some(137), None), ("kill -9 $$", None, Some("KILL")), ("exit 7", Some(7), None)]
    {
        let done = Bench::new().run(rig::script(text), &[address], fleet.login()).await;
        let (_, record, _) = &done.tasks()[0];
        assert_eq!((record.exit_code, record.signal.as_deref()), (code, signal), "{text}");
        assert_eq!(record.state, TaskState::Failed);
    }
    let mut job = rig::script("exit 7");
    job.ok_exit_codes.insert(7);
    let done = Bench::new().run(job, &[address], fleet.login()).await;
    assert_eq!(done.state(address).0, TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn script_that_runs_too_long_is_ended_on_the_host_and_timed_out() {
    let (fleet, folder) = (SshdFleet::same(1), tempfile::tempdir().unwrap());
    let address = fleet.addresses()[0];
    let ended = folder.path().join("ended");
    let mut job =
        rig::script(&format!("trap 'echo TERM > {}; exit 9' TERM; echo begun; sleep 300 & wait", ended.display()));
    job.timeout = seconds(1);
    let done = Bench::new().run(job, &[address], fleet.login()).await;
    assert_eq!(done.state(address), (TaskState::TimedOut, "ran longer than 1s".to_owned()));
    assert_eq!(done.tasks()[0].2, "begun\n");
    assert_eq!(std::fs::read_to_string(ended).unwrap(), "TERM\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_cut_in_its_middle_never_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (login, mark) = (Login::fresh(), folder.path().join("ran"));
    for bytes in [1, 4096, 20_000, 60_000] {
        let host = Faulty::start(Fault::CutsInputAfter(bytes));
        let text = format!("echo ran > {}\n{}", mark.display(), "# padding\n".repeat(20_000));
        let done = Bench::new().run(rig::script(&text), &[host.address()], &login).await;
        let (state, reason) = done.state(host.address());
        assert!(matches!(state, TaskState::Unreachable | TaskState::Lost), "{bytes}: {state} {reason}");
        host.wait_for_commands();
        assert!(!mark.exists(), "{bytes}");
    }
}

/// Cause: each further exit status moved the end of listening.
#[tokio::test(flavor = "multi_thread")]
async fn host_that_repeats_its_status_is_not_listened_to_for_ever() {
    let (host, bench, login) = (Faulty::start(Fault::RepeatsStatus), Bench::new(), Login::fresh());
    let addresses = [host.address()];
    let done = tokio::time::timeout(Duration::from_mins(1), bench.run(rig::script("true"), &addresses, &login));
    let done = done.await.expect("listening ends");
    assert_eq!(done.state(host.address()).0, TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_beyond_its_limit_is_cut_marked_and_counted() {
    use sshjob::domain::layout::Stream;
    let (fleet, bench) = (SshdFleet::same(1), Bench::new());
    let address = fleet.addresses()[0];
    let mut job = rig::script("head -c 1000000 /dev/zero | tr '\\0' x");
    job.max_output = ByteSize(600_000);
    let done = bench.run(job, &[address], fleet.login()).await;
    let (_, record, _) = &done.tasks()[0];
    assert_eq!((record.state, record.stdout_bytes, record.truncated), (TaskState::Succeeded, 1_000_000, true));
    assert_eq!(bench.output(&done, address, Stream::Out).await.len(), 600_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_errors_than_allowed_start_no_more_tasks() {
    let fleet = SshdFleet::same(10);
    let mut job = rig::script("exit 1");
    job.rollout.max_concurrency = Amount::Count(1);
    job.rollout.max_errors = Some(Amount::Percent(20));
    let done = Bench::new().run(job, &fleet.addresses(), fleet.login()).await;
    assert_eq!(done.driven.stop, Some(Stop::MaxErrors(2)));
    let counts = &done.driven.verdict.as_ref().unwrap().counts;
    assert_eq!((counts.of(TaskState::Failed), counts.of(TaskState::Skipped)), (3, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_that_fails_keeps_the_others_from_starting() {
    let fleet = SshdFleet::same(6);
    let mut job = rig::script("exit 1");
    job.rollout.canary = Amount::Count(1);
    let done = Bench::new().run(job, &fleet.addresses(), fleet.login()).await;
    assert_eq!(done.driven.stop, Some(Stop::Canary));
    let counts = &done.driven.verdict.as_ref().unwrap().counts;
    assert_eq!((counts.of(TaskState::Failed), counts.of(TaskState::Skipped)), (1, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_host_is_tried_again_as_often_as_the_job_says() {
    let host = Faulty::start(Fault::Refuses);
    let mut job = rig::script("true");
    job.retries.attempts = 3;
    job.retries.delay = Span(Duration::from_millis(10));
    let done = Bench::new().run(job, &[host.address()], &Login::fresh()).await;
    assert_eq!(done.tasks()[0].1.attempt, 3);
    assert_eq!(done.state(host.address()).0, TaskState::Unreachable);
}

/// Cause: a task that waited for another attempt when no more were started was called `skipped`: never started.
#[tokio::test(flavor = "multi_thread")]
async fn task_that_waits_for_another_attempt_ends_as_its_last_one_when_no_more_are_made() {
    use sshjob::domain::job::RetryOn;
    use sshjob::domain::layout::RunKeys;
    use sshjob::domain::run::Outcomes;
    use sshjob::engine::drive::drive;
    use sshjob::engine::event::Event;
    use sshjob::engine::reconcile::{Settled, reconcile};
    let (fleet, bench) = (SshdFleet::same(1), Bench::new());
    let gone = Faulty::start(Fault::Refuses);
    let mut job = rig::script("exit 3");
    job.retries.attempts = 3;
    job.retries.delay = seconds(3600);
    job.retries.on.push(RetryOn::Failed);
    let addresses = [fleet.addresses()[0], gone.address()];
    let runs = Runs::new(bench.store.clone());
    let started = start(&runs, rig::request(job, &addresses, "one"), Clock::System.now()).await.unwrap();
    let (worker, mut heard) = rig::worker(&bench.store, &started, &fleet.login().path());
    let gate = worker.gate.clone();
    let (driving, run) = (started.clone(), started.run.run.clone());
    let driven = tokio::spawn(async move { drive(&worker, &driving).await.unwrap() });
    let mut waiting = 0;
    while waiting < 2 {
        waiting += usize::from(matches!(heard.recv().await.unwrap(), Event::TaskRetried { .. }));
    }
    // Both wait, durably: a copy of the store is what is left after a crash here.
    let key = RunKeys::new(&run).outcomes(0);
    let crashed = loop {
        let (outcomes, _) = runs.read::<Outcomes>(&key).await.unwrap().unwrap();
        if outcomes.tasks.values().filter(|task| task.retried.is_some()).count() == 2 {
            break outcomes;
        }
        tokio::task::yield_now().await;
    };
    gate.close(Stop::Canary);
    let expected = [(TaskState::Failed, 1), (TaskState::Unreachable, 1)];
    assert_eq!(driven.await.unwrap().verdict.unwrap().counts.iter().collect::<Vec<_>>(), expected);

    let left = Bench::new();
    let runs = Runs::new(left.store.clone());
    let targets = addresses.map(rig::target).to_vec();
    let batch = sshjob::domain::run::BatchTargets { targets };
    let keys = RunKeys::new(&run);
    runs.create(&keys.run(), &*started.run).await.unwrap();
    runs.create(&keys.targets(0), &batch).await.unwrap();
    runs.create(&keys.outcomes(0), &crashed).await.unwrap();
    runs.create(&keys.plan(), &started.plan).await.unwrap();
    let Settled::Finished(verdict) = reconcile(&runs, &started.run, Clock::System.now()).await.unwrap() else {
        panic!("nobody drives it");
    };
    assert_eq!(verdict.counts.iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_is_tried_again_only_where_the_job_lists_it() {
    use sshjob::domain::job::RetryOn;
    let (fleet, folder) = (SshdFleet::same(1), tempfile::tempdir().unwrap());
    let address = fleet.addresses()[0];
    let mark = folder.path().join("mark").display().to_string();
    let mut job = rig::script(&format!("echo attempt $SSHJOB_ATTEMPT >> {mark}; [ $SSHJOB_ATTEMPT = 2 ]"));
    job.retries.attempts = 5;
    job.retries.delay = Span(Duration::from_millis(10));
    let done = Bench::new().run(job.clone(), &[address], fleet.login()).await;
    assert_eq!((done.state(address).0, done.tasks()[0].1.attempt), (TaskState::Failed, 1));
    job.retries.on.push(RetryOn::Failed);
    let done = Bench::new().run(job, &[address], fleet.login()).await;
    assert_eq!((done.state(address).0, done.tasks()[0].1.attempt), (TaskState::Succeeded, 2));
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "attempt 1\nattempt 1\nattempt 2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn same_batch_in_two_workers_starts_each_task_once() {
    let (fleet, folder) = (SshdFleet::same(4), tempfile::tempdir().unwrap());
    for round in 0..20 {
        let bench = Bench::new();
        let marks = folder.path().join(round.to_string());
        let job = rig::script(&format!("echo $SSHJOB_INSTANCE >> {}", marks.display()));
        let request = rig::request(job, &fleet.addresses(), "one");
        let started = start(&Runs::new(bench.store.clone()), request, Clock::System.now()).await.unwrap();
        let login = fleet.login().path();
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let (worker, heard) = rig::worker(&bench.store, &started, &login);
                let run = started.run.run.clone();
                tokio::spawn(async move {
                    let _heard = heard;
                    let expires_at = Clock::System.now() + Duration::from_mins(10);
                    worker.run_batch(&run, 0, expires_at, false, &Arc::new(Notify::new())).await
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += usize::from(task.await.unwrap().is_ok());
        }
        assert_eq!(done, 1, "one worker has the batch");
        let starts = std::fs::read_to_string(&marks).unwrap();
        assert_eq!(starts.lines().count(), 4, "{starts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn same_request_from_two_drivers_is_one_run_and_starts_each_task_once() {
    let (fleet, folder) = (SshdFleet::same(4), tempfile::tempdir().unwrap());
    for round in 0..10 {
        let bench = Bench::new();
        let marks = folder.path().join(round.to_string());
        let job = rig::script(&format!("echo $SSHJOB_INSTANCE >> {}", marks.display()));
        let run = || rig::run(&bench.store, rig::request(job.clone(), &fleet.addresses(), "one"), fleet.login());
        let (first, second) = tokio::join!(run(), run());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.started.run.run, second.started.run.run);
        assert_eq!(first.driven.verdict, second.driven.verdict);
        assert_eq!(first.driven.verdict.as_ref().unwrap().counts.of(TaskState::Succeeded), 4);
        assert_eq!((first.tasks().len(), second.tasks().len()), (4, 4), "both tell every task");
        assert_eq!(std::fs::read_to_string(&marks).unwrap().lines().count(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_waits_for_its_next_attempt_takes_nobodys_place() {
    let (dead, fleet) = (Faulty::start(Fault::Refuses), SshdFleet::same(2));
    let mut job = rig::script("true");
    job.rollout.max_concurrency = Amount::Count(1);
    job.retries.attempts = 2;
    // Were the place kept meanwhile, the sound hosts would end after the dead one.
    job.retries.delay = seconds(2);
    let mut all = vec![dead.address()];
    all.extend(fleet.addresses());
    let done = Bench::new().run(job, &all, fleet.login()).await;
    let order: Vec<String> = done.tasks().into_iter().map(|(instance, _, _)| instance).collect();
    assert_eq!(order.last(), Some(&rig::target(dead.address()).instance.to_string()), "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn program_that_the_host_lacks_is_a_failure_not_a_network_problem() {
    let fleet = SshdFleet::same(1);
    let address = fleet.addresses()[0];
    for job in [rig::job(Source::Command(vec!["no-such-program".to_owned()])), rig::script("#!/no/such/interpreter\n")]
    {
        let done = Bench::new().run(job, &[address], fleet.login()).await;
        let (_, record, _) = &done.tasks()[0];
        assert_eq!((record.state, record.exit_code, record.started_at), (TaskState::Failed, Some(127), None));
        assert!(record.reason.as_ref().is_some_and(|reason| reason.contains("no")), "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_loses_output_stops_the_run_before_the_next_host() {
    use crate::support::memory::{Fault as StoreFault, Memory};
    let fleet = SshdFleet::same(2);
    let mut job = rig::script("echo output");
    job.rollout.max_concurrency = Amount::Count(1);
    let store = Memory::default().with_fault_at("/output/", StoreFault::ErrorBefore);
    let done = rig::run(&store, rig::request(job, &fleet.addresses(), "one"), fleet.login()).await.unwrap();
    assert!(matches!(done.driven.stop, Some(Stop::Store(_))), "{:?}", done.driven.stop);
    // Which of the two is told of first is open: the one that is skipped need not wait for the other's end.
    let mut ends: Vec<_> = done.tasks().into_iter().map(|(_, record, _)| (record.state, record.truncated)).collect();
    ends.sort();
    assert_eq!(ends, [(TaskState::Succeeded, true), (TaskState::Skipped, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_comes_again_after_its_end_marks_nothing_as_unfinished() {
    let (fleet, bench) = (SshdFleet::same(1), Bench::new());
    let done = bench.run(rig::script("true"), &fleet.addresses(), fleet.login()).await;
    let runs = Runs::new(bench.store.clone());
    let again = start(&runs, rig::request(rig::script("true"), &fleet.addresses(), "one"), Clock::System.now()).await;
    let run = &again.unwrap().run.run;
    assert_eq!(*run, done.started.run.run);
    assert!(runs.active(run).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn script_that_is_gone_from_the_store_ends_the_run_and_says_so() {
    use sshjob::port::Store as _;
    let (fleet, bench) = (SshdFleet::same(2), Bench::new());
    let runs = Runs::new(bench.store.clone());
    let request = rig::request(rig::script("echo never"), &fleet.addresses(), "gone");
    let started = start(&runs, request, Clock::System.now()).await.unwrap();
    bench.store.remove(&sshjob::domain::layout::blob(&started.run.script.sha256)).await.unwrap();
    let (worker, mut heard) = rig::worker(&bench.store, &started, &fleet.login().path());
    let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let driven = sshjob::engine::drive::drive(&worker, &started).await.unwrap();
    drop(worker);
    listening.await.unwrap();
    let verdict = driven.verdict.unwrap();
    assert_eq!((verdict.state, verdict.counts.of(TaskState::Skipped)), (RunState::Failed, 2));
    assert!(verdict.reason.as_deref().unwrap_or_default().contains("does not exist"), "{verdict:?}");
}
