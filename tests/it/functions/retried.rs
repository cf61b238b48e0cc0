//! Runs of functions that are run again by them: the same bytes on the same hosts, once for each request.

use serde_json::json;
use sshjob::domain::id::RunId;
use sshjob::domain::task::TaskState;
use sshjob::engine::records::Runs;
use sshjob::functions::refusal::Kind;

use super::{Fleet, Pair, id, named};
use crate::support::key::Login;
use crate::support::memory::Fault;
use crate::support::sshd::SshdFleet;

/// The hosts of `run`, by their plan.
async fn hosts(pair: &Pair, run: &RunId) -> Vec<String> {
    let mut hosts = Vec::new();
    for n in 0..u32::try_from(pair.runs().plan(run).await.unwrap().unwrap().batches.len()).unwrap() {
        let targets = pair.runs().targets(run, n).await.unwrap().unwrap().targets;
        hosts.extend(targets.into_iter().map(|target| target.instance.to_string()));
    }
    hosts
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_runs_the_same_bytes_where_they_did_not_succeed_though_all_else_has_changed() {
    let fleet = SshdFleet::same(3);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    let unlucky = id(&fleet.addresses()[1]);
    pair.put("scripts/once.sh", &format!("#!/bin/sh\necho here; [ $SSHJOB_INSTANCE != {unlucky} ]\n")).await;
    pair.job("once", "script: scripts/once.sh\n").await;
    let first = named(&pair.ask(json!({ "job": "once", "id": "a" })).await.unwrap());
    let early = pair.ask(json!({ "retry": first })).await.unwrap_err();
    assert!(early.kind == Kind::InvalidEvent && early.message.contains("is not over"), "{early}");
    pair.work_all().await;
    pair.tick().await;
    assert_eq!(pair.verdict(&first).await.as_deref(), Some("failed"));
    // Neither the inventory nor the job is asked again.
    pair.trigger.inventory = Fleet::default();
    let event = json!({ "retry": first, "id": "b", "tasks": "failed" });
    let second = named(&pair.ask(event.clone()).await.unwrap());
    assert_eq!(named(&pair.ask(event).await.unwrap()), second);
    pair.work_all().await;
    pair.tick().await;
    assert_eq!(hosts(&pair, &second).await, [unlucky.as_str()]);
    let (old, new) =
        (pair.runs().run(&first).await.unwrap().unwrap(), pair.runs().run(&second).await.unwrap().unwrap());
    assert_eq!((new.retry_of.as_ref(), &new.script, &new.job), (Some(&first), &old.script, &old.job));
    assert_eq!(pair.states(&second).await, [(TaskState::Failed, String::new())]);
    assert_eq!(pair.output(&second, &unlucky).await, "here\n");
    let all = named(&pair.ask(json!({ "retry": first, "id": "c" })).await.unwrap());
    assert_eq!(hosts(&pair, &all).await, hosts(&pair, &first).await);
    for (event, kind, why) in [
        (json!({ "retry": "once-20200101T000000Z" }), Kind::UnknownRun, "there is no run"),
        (json!({ "retry": second, "id": "b", "tasks": "failed" }), Kind::OtherRequest, "runs something else"),
    ] {
        let refusal = pair.ask(event).await.unwrap_err();
        assert!(refusal.kind == kind && refusal.message.contains(why), "{refusal}");
    }
    pair.work_all().await;
    pair.tick().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_succeeded_has_nothing_to_run_again_but_all_of_it() {
    let fleet = SshdFleet::same(1);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("fine", "run: 'true'\n").await;
    let run = named(&pair.ask(json!({ "job": "fine", "id": "a" })).await.unwrap());
    pair.work_all().await;
    pair.tick().await;
    for tasks in ["failed", "lost"] {
        let refusal = pair.ask(json!({ "retry": run, "id": tasks, "tasks": tasks })).await.unwrap_err();
        assert!(refusal.kind == Kind::InvalidEvent && refusal.message.contains("no such tasks"), "{refusal}");
    }
    assert_eq!(pair.ask(json!({ "retry": run, "id": "all" })).await.unwrap()["sent"], 1);
}

#[tokio::test(start_paused = true)]
async fn trigger_that_dies_over_a_retry_leaves_one_run_on_the_same_hosts() {
    let all = (1..=1200_u32).map(|n| (std::net::Ipv4Addr::from(0x7f00_0000 + n), 22).into()).collect::<Vec<_>>();
    let mut deaths = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for n in 1.. {
            let mut pair = Pair::new(&all, &Login::fresh());
            pair.job("wide", "run: x\nhosts_per_worker: 400\n").await;
            let first = named(&pair.ask(json!({ "job": "wide", "id": "a" })).await.unwrap());
            // Nobody comes for it.
            pair.orders();
            pair.set_time(601);
            pair.tick().await;
            assert!(pair.verdict(&first).await.is_some());
            pair.trigger.inventory = Fleet(all[600..].to_vec(), std::sync::Arc::default());
            let machine = pair.runs().store().reboot().with_fault(n, fault);
            pair.trigger.runs = Runs::new(machine.clone());
            let event = json!({ "retry": first, "id": "b", "tasks": "failed" });
            let has_died = tokio::select! {
                biased;
                () = machine.crashed() => true,
                _ = pair.ask(event.clone()) => false,
            };
            pair.trigger.runs = Runs::new(machine.reboot());
            pair.set_time(660);
            pair.tick().await;
            let second = named(&pair.ask(event).await.unwrap());
            let told = format!("{fault:?} at write {n}");
            assert_eq!(hosts(&pair, &second).await, hosts(&pair, &first).await, "{told}");
            let runs = pair.runs().store().objects().into_iter().filter(|(key, _)| key.ends_with("/run.json")).count();
            assert_eq!(runs, 2, "{told}");
            if !has_died {
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths > 16, "{deaths}");
}
