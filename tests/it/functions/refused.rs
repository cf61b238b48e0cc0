//! What is wrong is refused by name, once, and nothing is half done.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sshjob::domain::layout;
use sshjob::domain::order::{Action, Order};
use sshjob::domain::script::MAX_SCRIPT_BYTES;
use sshjob::domain::task::TaskState;
use sshjob::domain::yaml::MAX_FILE_BYTES;
use sshjob::engine::records::Runs;
use sshjob::functions::refusal::{Kind, Refusal};
use sshjob::port::Store as _;

use super::{Pair, firing, id, named};
use crate::support::key::Login;
use crate::support::sshd::SshdFleet;

#[tokio::test(flavor = "multi_thread")]
async fn order_that_is_too_old_does_nothing() {
    let fleet = SshdFleet::same(1);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("old", "schedule: '* * * * *'\nrun: 'echo never'\n").await;
    pair.tick().await;
    let [order] = pair.orders().try_into().unwrap();
    pair.set_time(100);
    assert_eq!(pair.work(&order).await.unwrap()["done"], "nothing: the order is too old");
    assert!(pair.tasks(&firing("old")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_by_name_and_nothing_is_half_done() {
    let fleet = SshdFleet::same(1);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("gone", "script: scripts/gone.sh\n").await;
    pair.job("wrong", "runn: x\n").await;
    pair.put("jobs/all.yaml", "targets: {}\nkey: s3://keys/dev.pem\nrun: x\n").await;
    pair.job("late", "schedule: '0 * * * *'\nrun: x\ntimeout: 1h\n").await;
    pair.job("secret", "run: x\nsecrets: { A: 'env:NONE' }\n").await;
    pair.job("parameter", "run: x\nsecrets: { A: 'ssm:/none' }\n").await;
    pair.job("closed", "run: x\nsecrets: { A: 'ssm:/down' }\n").await;
    pair.put("jobs/key.yaml", "targets: { tags: { Role: web } }\nkey: s3://keys/none.pem\nrun: x\n").await;
    pair.put("jobs/garbage.yaml", "targets: { tags: { Role: web } }\nkey: s3://keys/garbage.pem\nrun: x\n").await;
    for (name, key) in [("empty", "keys/empty.pem"), ("locked", "keys/locked.pem"), ("foreign", "foreign/dev.pem")] {
        let text = format!("targets: {{ tags: {{ Role: web }} }}\nkey: s3://{key}\nrun: x\n");
        pair.put(&format!("jobs/{name}.yaml"), &text).await;
    }
    pair.put("jobs/file.yaml", "targets: { tags: { Role: web } }\nkey: dev.pem\nrun: x\n").await;
    pair.put("jobs/down.yaml", "targets: { tags: { Role: web } }\nkey: s3://down/dev.pem\nrun: x\n").await;
    for (event, kind) in [
        (json!({ "job": "none" }), Kind::InvalidJob),
        (json!({ "job": "wrong" }), Kind::InvalidJob),
        (json!({ "job": "all" }), Kind::InvalidJob),
        (json!({ "job": "late" }), Kind::InvalidJob),
        (json!({ "job": "gone" }), Kind::InvalidScript),
        (json!({ "reconcile": "hello-20261123T120000Z" }), Kind::UnknownRun),
        (json!({ "what": 1 }), Kind::InvalidEvent),
        // As large as the text that Lambda takes.
        (json!({ "job": "j".repeat(1 << 20) }), Kind::InvalidEvent),
        (json!({ "job": "hello", "id": "i".repeat(1 << 20) }), Kind::InvalidEvent),
        (json!({ "j".repeat(1 << 20): 1 }), Kind::InvalidEvent),
        (json!({ "time": "1".repeat(1 << 20) }), Kind::InvalidEvent),
        (json!({ "reconcile": "r".repeat(1 << 20) }), Kind::InvalidEvent),
        (json!({ "job": "hello", "tags": { "K": "v".repeat(1 << 20) } }), Kind::InvalidEvent),
        (json!(["x".repeat(1 << 20)]), Kind::InvalidEvent),
    ] {
        let refusal = pair.ask(event.clone()).await.unwrap_err();
        let shown: String = event.to_string().chars().take(80).collect();
        assert_eq!(refusal.kind, kind, "{shown}: {refusal}");
        assert!(refusal.message.len() < 1000, "{shown}: {} bytes are told of it", refusal.message.len());
    }
    assert!(pair.runs().store().list("runs/", None, 10).await.unwrap().is_empty());
    assert!(pair.runs().store().list(layout::ACTIVE, None, 10).await.unwrap().is_empty());
    for (job, kind) in [
        ("secret", Kind::InvalidSecret),
        ("parameter", Kind::InvalidSecret),
        ("key", Kind::InvalidKey),
        ("garbage", Kind::InvalidKey),
        ("empty", Kind::InvalidKey),
        ("locked", Kind::InvalidKey),
        ("foreign", Kind::InvalidKey),
        ("file", Kind::InvalidKey),
    ] {
        let run = named(&pair.ask(json!({ "job": job, "id": job })).await.unwrap());
        let [order] = pair.orders().try_into().unwrap();
        assert_eq!(pair.work(&order).await.unwrap_err().kind, kind, "{job}");
        // Told once: what is tried again finds everything closed.
        pair.work(&order).await.unwrap();
        let [(state, reason)] = pair.states(&run).await.try_into().unwrap();
        assert_eq!(state, TaskState::Skipped);
        assert!(reason.starts_with("nothing could be started: "), "{reason}");
    }
    for (job, kind) in [("down", Kind::KeysUnavailable), ("closed", Kind::SecretsUnavailable)] {
        let run = named(&pair.ask(json!({ "job": job, "id": job })).await.unwrap());
        let [order] = pair.orders().try_into().unwrap();
        assert_eq!(pair.work(&order).await.unwrap_err().kind, kind);
        assert!(pair.tasks(&run).await.is_empty(), "it may answer at the next tick");
    }
    assert_eq!(
        pair.worker.handle(json!({ "action": "run" }), Timestamp::MAX).await.unwrap_err().kind,
        Kind::InvalidEvent
    );
}

#[tokio::test(start_paused = true)]
async fn job_that_is_wrong_holds_up_no_other() {
    let pair = Pair::new(&[([127, 0, 0, 1], 22).into()], &Login::fresh());
    pair.job("good", "schedule: '* * * * *'\nrun: x\n").await;
    pair.job("bad", "schedule: '* * * * *'\nrunn: x\n").await;
    pair.job("large", &format!("schedule: '* * * * *'\nrun: x # {}\n", "x".repeat(MAX_FILE_BYTES))).await;
    assert_eq!(pair.tick().await, json!({ "fired": 1, "sent": 1, "troubles": 0, "invalid_jobs": 2 }));
    pair.put("scripts/large.sh", &"x".repeat(MAX_SCRIPT_BYTES + 1)).await;
    pair.job("long", "script: scripts/large.sh\n").await;
    for (job, kind, why) in [
        ("large", Kind::InvalidJob, "`jobs/large.yaml` is damaged: it has more than 1048576 bytes"),
        ("long", Kind::InvalidScript, "script `scripts/large.sh`: it has more than 16777216 bytes"),
    ] {
        let refusal = pair.ask(json!({ "job": job })).await.unwrap_err();
        assert!(refusal.kind == kind && refusal.message.contains(why), "{refusal}");
    }
}

/// Cause: an order leaves nothing behind, so that nobody knew why no worker had come.
#[tokio::test(start_paused = true)]
async fn batch_that_is_given_up_tells_what_has_kept_its_workers() {
    let mut pair = Pair::new(&[([127, 0, 0, 1], 22).into()], &Login::fresh());
    pair.put("jobs/down.yaml", "targets: { tags: { Role: web } }\nkey: s3://down/dev.pem\nrun: x\n").await;
    let run = named(&pair.ask(json!({ "job": "down", "id": "down" })).await.unwrap());
    for minute in 1..=11 {
        for order in pair.orders() {
            assert_eq!(pair.work(&order).await.unwrap_err().kind, Kind::KeysUnavailable);
        }
        pair.set_time(60 * minute);
        pair.tick().await;
    }
    let why =
        "no worker came for it within the `deadline`; the last trouble of the run: the bucket `down` does not answer";
    assert_eq!(pair.states(&run).await, [(TaskState::Skipped, why.to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn run_whose_workers_could_not_be_sent_for_tells_why() {
    let mut pair = Pair::new(&[([127, 0, 0, 1], 22).into()], &Login::fresh());
    pair.job("ask", "run: x\n").await;
    pair.trigger.dispatcher.is_denied = true;
    let run = named(&pair.ask(json!({ "job": "ask", "id": "a" })).await.unwrap());
    for minute in 1..=11 {
        pair.set_time(60 * minute);
        pair.tick().await;
    }
    let [(state, why)] = pair.states(&run).await.try_into().unwrap();
    assert_eq!(state, TaskState::Skipped);
    assert!(
        why.ends_with("the last trouble of the run: batch 0: `lambda:InvokeFunction` on `worker`: denied"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_that_starts_is_welcomed_though_another_job_cannot_be_selected() {
    let fleet = SshdFleet::same(1);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("a", "on: [instance-running]\nrun: 'echo a'\n").await;
    pair.job("b-invalid", "on: [instance-running]\nrun: 'echo b'\n").await;
    pair.job("c", "on: [instance-running]\nrun: 'echo c'\n").await;
    let instance = id(&fleet.addresses()[0]);
    let event = json!({ "source": "aws.ec2", "id": "e-1", "detail": { "instance-id": instance, "state": "running" } });
    let started = pair.ask(event).await.unwrap();
    assert_eq!(started["runs"].as_array().unwrap().len(), 2, "{started}");
}

#[tokio::test(start_paused = true)]
async fn event_that_is_garbage_or_too_large_is_refused_shortly_and_leaves_nothing() {
    let pair = Pair::new(&[], &Login::fresh());
    pair.job("ask", "run: x\n").await;
    let before = pair.runs().store().objects();
    let large = "x".repeat(1_000_000);
    let tags: Vec<(String, &str)> = (0..51).map(|n| (format!("k{n}"), "v")).collect();
    let tags: std::collections::BTreeMap<_, _> = tags.into_iter().collect();
    for event in [
        json!(null),
        json!(7),
        json!(large),
        json!([[[[]]]]),
        json!({ &large: &large }),
        json!({ "job": large }),
        json!({ "job": "ask", "id": large }),
        json!({ "job": "ask", "id": "" }),
        json!({ "job": "ask", "tags": { "Role": large } }),
        json!({ "job": "ask", "tags": { &large: "web" } }),
        json!({ "job": "ask", "tags": { "Role": "\u{1b}[2J\\" } }),
        json!({ "job": "ask", "tags": { "": "web" } }),
        json!({ "job": "ask", "tags": tags }),
        json!({ "job": "ask", "tags": "Role=web" }),
        json!({ "reconcile": large }),
        json!({ "time": large }),
        json!({ "source": "aws.ec2", "id": large, "detail": { "instance-id": "i-1", "state": "running" } }),
        json!({ "source": "aws.ec2", "id": "e", "detail": { "instance-id": large, "state": "running" } }),
        json!({ "source": "aws.ec2", "id": "e", "detail": large }),
    ] {
        let shown: String = event.to_string().chars().take(80).collect();
        let refusal = pair.ask(event).await.expect_err(&shown);
        assert_eq!(refusal.kind, Kind::InvalidEvent, "{shown}");
        check_text(&refusal, &shown);
    }
    for order in [
        json!(null),
        json!(large),
        json!({ "action": large, "run": "a", "job": "a", "batch": 0, "not_after": "2026-11-23T12:00:00Z" }),
        json!({ "action": "run", "run": large, "job": "a", "batch": 0, "not_after": "2026-11-23T12:00:00Z" }),
        json!({ "action": "run", "run": "../../x", "job": "a", "batch": 0, "not_after": "2026-11-23T12:00:00Z" }),
        json!({ "action": "run", "run": firing("ask"), "job": "ask", "batch": -1, "not_after": "2026-11-23T12:00:00Z" }),
        json!({ "action": "run", "run": firing("ask"), "job": "ask", "batch": 0, "not_after": "tomorrow" }),
    ] {
        let shown: String = order.to_string().chars().take(80).collect();
        let refusal = pair.worker.handle(order, Timestamp::MAX).await.unwrap_err();
        assert_eq!(refusal.kind, Kind::InvalidEvent, "{shown}");
        check_text(&refusal, &shown);
    }
    let unknown = json!({
        "action": "run", "run": firing("ask"), "job": "ask", "batch": 0, "not_after": "2026-11-23T12:01:00Z",
    });
    assert_eq!(pair.worker.handle(unknown, Timestamp::MAX).await.unwrap_err().kind, Kind::UnknownRun);
    assert_eq!(pair.runs().store().objects(), before);
}

/// What is said is short, and can harm no terminal and no log.
fn check_text(refusal: &Refusal, event: &str) {
    let text = &refusal.message;
    assert!(text.len() < 1500, "{event}: {} bytes", text.len());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{event}: {text:?}");
}

#[tokio::test(start_paused = true)]
async fn store_that_refuses_is_named_and_nothing_is_sent() {
    let mut pair = Pair::new(&[], &Login::fresh());
    pair.job("ask", "run: x\n").await;
    let locked = pair.runs().store().reboot().with_outage(1, Duration::from_hours(1));
    pair.trigger.runs = Runs::new(locked.clone());
    pair.worker = pair.other_worker(&locked);
    for event in [json!({}), json!({ "job": "ask" }), json!({ "reconcile": firing("ask") })] {
        assert_eq!(pair.ask(event).await.unwrap_err().kind, Kind::StoreUnavailable);
    }
    let order = Order::new(Action::Run, &firing("ask"), 0, pair.worker.clock.now());
    assert_eq!(pair.work(&order).await.unwrap_err().kind, Kind::StoreUnavailable);
    assert!(pair.orders().is_empty() && locked.writes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn selector_that_nothing_matches_is_a_run_that_is_skipped_and_sends_nobody() {
    let pair = Pair::new(&[], &Login::fresh());
    pair.job("ask", "run: x\n").await;
    let answer = pair.ask(json!({ "job": "ask", "id": "a" })).await.unwrap();
    assert_eq!((&answer["sent"], &answer["state"]), (&json!(0), &json!("skipped")));
    let verdict = pair.verdict(&named(&answer)).await;
    assert_eq!(verdict.as_deref(), Some("skipped: no running instance matches"));
    assert!(pair.orders().is_empty());
}
