//! Runs from their firing to their verdict.

use jiff::SignedDuration;
use serde_json::json;
use sshjob::domain::order::Action;
use sshjob::domain::task::TaskState;
use sshjob::engine::control;
use sshjob::functions::refusal::Kind;

use super::{Pair, firing, id, named, run_id};
use crate::support::key::Login;
use crate::support::sshd::SshdFleet;

#[tokio::test(flavor = "multi_thread")]
async fn firing_is_planned_sent_for_run_and_judged_at_the_next_tick() {
    let fleet = SshdFleet::same(3);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.put("scripts/hello.sh", "#!/bin/sh\necho \"hello $1 $GREETING $TOKEN $OTHER\"\n").await;
    let job = "schedule: '* * * * *'\nscript: scripts/hello.sh\nargs: [you]\nenv: { GREETING: hi }\nhosts_per_worker: 2\n\
               secrets: { TOKEN: 'env:TOKEN', OTHER: 'ssm:/app/token' }\n";
    pair.job("hello", job).await;
    assert_eq!(pair.tick().await, json!({ "fired": 1, "sent": 2, "troubles": 0, "invalid_jobs": 0 }));
    let run = firing("hello");
    // Every order comes twice.
    for order in pair.orders() {
        let (first, second) = tokio::join!(pair.work(&order), pair.work(&order));
        first.unwrap();
        second.unwrap();
        let again = pair.work(&order).await.unwrap();
        assert_eq!(again["done"], "nothing: every task is final");
    }
    assert_eq!(pair.states(&run).await, vec![(TaskState::Succeeded, String::new()); 3]);
    for address in fleet.addresses() {
        assert_eq!(pair.output(&run, &id(&address)).await, "hello you hi s3cr3t p4r4m\n");
    }
    assert_eq!(pair.verdict(&run).await, None);
    pair.set_time(30);
    assert_eq!(pair.tick().await["sent"], 0);
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("succeeded"));
    assert!(pair.runs().active(&run).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_workers_have_done_is_in_the_way_of_no_firing() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("minutely", "schedule: '* * * * *'\noverlap: skip\nrun: 'true'\n").await;
    for minute in 0..3 {
        pair.set_time(60 * minute);
        assert_eq!(pair.tick().await["sent"], 1);
        pair.work_all().await;
        let run = run_id(&format!("minutely-20261123T120{minute}00Z"));
        // Nobody has put together yet what its workers have done.
        assert_eq!(pair.verdict(&run).await, None);
    }
    for minute in 0..2 {
        let run = run_id(&format!("minutely-20261123T120{minute}00Z"));
        let verdict = pair.runs().verdict(&run).await.unwrap().unwrap();
        let last = pair.tasks(&run).await.into_iter().filter_map(|task| task.finished_at).max();
        // It took as long as its tasks, not until somebody came to see.
        assert_eq!((verdict.state.as_str(), Some(verdict.finished_at)), ("succeeded", last));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_job_is_started_once_and_collected_at_later_ticks() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let job = format!(
        "schedule: '* * * * *'\nmode: detached\nrun: 'until [ -e {} ]; do sleep 0.1; done; echo done'\n",
        gate.display()
    );
    pair.job("late", &job).await;
    pair.tick().await;
    let run = firing("late");
    assert_eq!(pair.work_all().await, [(Action::Run, 0)]);
    assert_eq!(pair.states(&run).await, vec![(TaskState::Running, String::new()); 2]);
    pair.set_time(30);
    pair.tick().await;
    assert_eq!(pair.work_all().await, [(Action::Collect, 0)]);
    assert_eq!(pair.verdict(&run).await, None);
    std::fs::write(&gate, "").unwrap();
    let mut round = 0;
    while pair.verdict(&run).await.is_none() {
        round += 1;
        assert!(round < 200, "{:?}", pair.states(&run).await);
        pair.ask(json!({ "reconcile": run })).await.unwrap();
        pair.work_all().await;
    }
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("succeeded"));
    assert_eq!(pair.output(&run, &id(&fleet.addresses()[0])).await, "done\n");
}

/// Cause: without its key a detached run was collected in vain for ever, each time with an error, and its job, which
/// skips while it runs, never fired again.
#[tokio::test(flavor = "multi_thread")]
async fn detached_run_whose_key_is_gone_is_told_of_and_given_up_when_its_hosts_have_forgotten_it() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("late", "schedule: '0 12 * * *'\nmode: { detached: { keep: 1d } }\nrun: 'true'\n").await;
    pair.tick().await;
    let run = firing("late");
    assert_eq!(pair.work_all().await, [(Action::Run, 0)]);
    pair.worker.keys.0.clear();
    for (hours, is_over) in [(1, false), (23, false), (25, true)] {
        pair.set_time(3600 * hours);
        pair.ask(json!({ "reconcile": run })).await.unwrap();
        let [order] = pair.orders().try_into().unwrap();
        // Nothing failed that is worth trying again, or keeping among the dead letters.
        let answer = pair.work(&order).await.unwrap();
        assert!(answer["done"].as_str().unwrap().ends_with("its hosts cannot be asked"), "{answer}");
        let states = pair.states(&run).await;
        assert_eq!(states.iter().all(|(state, _)| *state == TaskState::Lost), is_over, "{hours} h: {states:?}");
    }
    let why = pair.states(&run).await.remove(0).1;
    assert!(why.contains("its host cannot be asked: there is no `s3://keys/dev.pem`"), "{why}");
    pair.ask(json!({ "reconcile": run })).await.unwrap();
    assert!(pair.orders().is_empty());
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_run_opens_a_wave_per_tick_and_stops_at_errors() {
    let fleet = SshdFleet::same(5);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    let job = "schedule: '* * * * *'\nrun: 'exit 1'\nrollout: { max_concurrency: 2, max_errors: 1 }\noverlap: allow\n";
    pair.job("roll", job).await;
    let canary = "schedule: '0 * * * *'\nrun: 'exit 1'\nrollout: { canary: 1 }\n";
    pair.job("bird", canary).await;
    pair.tick().await;
    let sent: Vec<_> = pair.orders();
    assert_eq!(sent.len(), 2);
    for order in sent {
        pair.work(&order).await.unwrap();
    }
    pair.set_time(20);
    pair.tick().await;
    let skipped = |why: &str| (TaskState::Skipped, why.to_owned());
    let why = "max_errors exceeded: more than 1 did not succeed";
    let states = pair.states(&firing("roll")).await;
    assert_eq!(states.iter().filter(|state| **state == skipped(why)).count(), 3, "{states:?}");
    assert_eq!(pair.verdict(&firing("roll")).await.unwrap(), format!("failed: {why}"));
    let why = "max_errors exceeded: the canary did not succeed";
    assert_eq!(pair.verdict(&firing("bird")).await.unwrap(), format!("failed: {why}"));
    assert!(pair.orders().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_whose_time_is_over_ends_what_runs_and_leaves_the_rest_to_another() {
    let fleet = SshdFleet::same(2);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("slow", "schedule: '* * * * *'\nrun: 'echo begun; sleep 1000'\n").await;
    pair.tick().await;
    let [order] = pair.orders().try_into().unwrap();
    pair.work_until(&order, pair.worker.clock.now() + SignedDuration::from_secs(6)).await.unwrap();
    let ended = "ended, for the time of its worker was over";
    let states = pair.states(&firing("slow")).await;
    assert!(states.iter().all(|(state, why)| *state == TaskState::TimedOut && why.starts_with(ended)), "{states:?}");
    fleet.wait_until_idle();
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_is_cancelled_ends_in_its_worker() {
    let fleet = SshdFleet::same(2);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("long", "schedule: '* * * * *'\nrun: 'sleep 1000'\nrollout: { max_concurrency: 1 }\n").await;
    pair.tick().await;
    let run = firing("long");
    let [order] = pair.orders().try_into().unwrap();
    control::cancel(pair.runs(), &run, "ann").await.unwrap();
    pair.work(&order).await.unwrap();
    pair.ask(json!({ "reconcile": run })).await.unwrap();
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("cancelled"));
    assert_eq!(pair.states(&run).await, vec![(TaskState::Cancelled, "cancelled before it started".to_owned()); 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_of_a_dead_worker_goes_to_another_which_starts_nothing_twice() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("once", "schedule: '* * * * *'\nrun: 'echo here; sleep 0.5'\nhosts_per_worker: 2\n").await;
    pair.tick().await;
    let run = firing("once");
    let [order] = pair.orders().try_into().unwrap();
    // The first worker dies when its first intents are written.
    let dying = {
        let worker = pair.work(&order);
        tokio::select! {
            done = worker => panic!("{done:?}"),
            () = async {
                while !pair.tasks(&run).await.iter().any(|task| task.state == TaskState::Running) {
                    tokio::task::yield_now().await;
                }
            } => pair.tasks(&run).await,
        }
    };
    let begun = dying.iter().filter(|task| task.state == TaskState::Running).count();
    pair.set_time(60);
    // Its claim holds to the end of its time.
    assert_eq!(pair.tick().await["sent"], 0);
    pair.set_time(901);
    pair.tick().await;
    assert_eq!(pair.work_all().await, [(Action::Run, 0)]);
    let states = pair.states(&run).await;
    let lost = states.iter().filter(|state| **state == (TaskState::Lost, "worker".to_owned())).count();
    assert!(lost >= begun && states.iter().all(|(state, _)| state.is_final()), "{states:?}");
    pair.set_time(902);
    pair.tick().await;
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn request_delivered_twice_is_one_run() {
    let fleet = SshdFleet::same(2);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("ask", "run: 'echo asked'\n").await;
    let first = pair.ask(json!({ "job": "ask", "id": "a" })).await.unwrap();
    let second = pair.ask(json!({ "job": "ask", "id": "a" })).await.unwrap();
    assert_eq!(named(&first), named(&second));
    // The same invocation, tried again by Lambda.
    let third = named(&pair.ask(json!({ "job": "ask" })).await.unwrap());
    assert_eq!(third, named(&pair.ask(json!({ "job": "ask" })).await.unwrap()));
    assert_ne!(third, named(&first));
    pair.work_all().await;
    pair.tick().await;
    assert_eq!(pair.verdict(&third).await.as_deref(), Some("succeeded"));
    let other = pair.ask(json!({ "job": "ask", "id": "a", "tags": { "Role": "db" } })).await.unwrap_err();
    assert_eq!(other.kind, Kind::OtherRequest);
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_that_starts_is_run_on_once_and_alone() {
    let fleet = SshdFleet::same(2);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("greet", "on: [instance-running]\nrun: 'echo welcome'\n").await;
    pair.job("else", "run: 'echo no'\n").await;
    let instance = id(&fleet.addresses()[1]);
    let event = json!({ "source": "aws.ec2", "id": "e-1", "detail": { "instance-id": instance, "state": "running" } });
    let first = pair.ask(event.clone()).await.unwrap();
    assert_eq!(pair.ask(event).await.unwrap()["runs"][0]["run"], first["runs"][0]["run"]);
    pair.work_all().await;
    let run = named(&first["runs"][0]);
    assert_eq!(pair.states(&run).await, [(TaskState::Succeeded, String::new())]);
    assert_eq!(pair.output(&run, &instance).await, "welcome\n");
    let stranger = json!({ "source": "aws.ec2", "id": "e-2", "detail": { "instance-id": "i-9", "state": "running" } });
    assert_eq!(pair.ask(stranger).await.unwrap(), json!({ "runs": [] }));
}

/// Cause: of the whole fleet a limit picks some, and whoever had just started was mostly not among them.
#[tokio::test(start_paused = true)]
async fn instance_that_starts_is_run_on_whatever_a_limit_makes_of_the_others() {
    let hosts: Vec<_> = (1..=3).map(|n| ([127, 0, 0, n], 22).into()).collect();
    let pair = Pair::new(&hosts, &Login::fresh());
    let job = "targets: { tags: { Role: web }, limit: 1, regions: [eu-west-1] }\nkey: s3://keys/dev.pem\non: [instance-running]\n";
    pair.put("jobs/greet.yaml", &format!("{job}run: x\n")).await;
    for (n, host) in hosts.iter().enumerate() {
        let detail = json!({ "instance-id": id(host), "state": "running" });
        let event = json!({ "source": "aws.ec2", "id": format!("e-{n}"), "region": "eu-west-1", "detail": detail });
        let started = pair.ask(event).await.unwrap();
        assert_eq!(started["runs"][0]["sent"], 1, "{started}");
        // Nobody looks there for it.
        let event = json!({ "source": "aws.ec2", "id": format!("f-{n}"), "region": "eu-west-2", "detail": detail });
        assert_eq!(pair.ask(event).await.unwrap(), json!({ "runs": [] }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_of_a_paused_run_leaves_what_has_not_started_to_the_next() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("calm", "schedule: '* * * * *'\nrun: 'echo on'\n").await;
    pair.tick().await;
    let run = firing("calm");
    let [order] = pair.orders().try_into().unwrap();
    control::pause(pair.runs(), &run, "ann").await.unwrap();
    // It returns, long before its time is over, and as often as it is sent for.
    for _ in 0..4 {
        pair.work(&order).await.unwrap();
    }
    assert!(pair.tasks(&run).await.iter().all(|task| task.state == TaskState::Pending));
    control::resume(pair.runs(), &run, "ann").await.unwrap();
    pair.set_time(30);
    pair.tick().await;
    assert_eq!(pair.work_all().await, [(Action::Run, 0)]);
    assert_eq!(pair.states(&run).await, vec![(TaskState::Succeeded, String::new()); 2]);
}
