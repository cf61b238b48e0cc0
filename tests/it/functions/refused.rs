//! What is wrong is refused by name, once, and nothing is half done.

use jiff::Timestamp;
use serde_json::json;
use sshjob::domain::layout;
use sshjob::domain::task::TaskState;
use sshjob::functions::refusal::Kind;
use sshjob::port::Store as _;

use super::{Pair, firing, id, named};
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
    pair.put("jobs/key.yaml", "targets: { tags: { Role: web } }\nkey: s3://keys/none.pem\nrun: x\n").await;
    pair.put("jobs/garbage.yaml", "targets: { tags: { Role: web } }\nkey: s3://keys/garbage.pem\nrun: x\n").await;
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
    ] {
        let refusal = pair.ask(event.clone()).await.unwrap_err();
        assert_eq!(refusal.kind, kind, "{event}: {refusal}");
    }
    assert!(pair.runs().store().list("runs/", None, 10).await.unwrap().is_empty());
    assert!(pair.runs().store().list(layout::ACTIVE, None, 10).await.unwrap().is_empty());
    for (job, kind) in [
        ("secret", Kind::InvalidSecret),
        ("key", Kind::InvalidKey),
        ("garbage", Kind::InvalidKey),
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
    let run = named(&pair.ask(json!({ "job": "down", "id": "down" })).await.unwrap());
    let [order] = pair.orders().try_into().unwrap();
    assert_eq!(pair.work(&order).await.unwrap_err().kind, Kind::KeysUnavailable);
    assert!(pair.tasks(&run).await.is_empty(), "it may answer at the next tick");
    assert_eq!(
        pair.worker.handle(json!({ "action": "run" }), Timestamp::MAX).await.unwrap_err().kind,
        Kind::InvalidEvent
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn job_that_is_wrong_holds_up_no_other() {
    let fleet = SshdFleet::same(1);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("good", "schedule: '* * * * *'\nrun: x\n").await;
    pair.job("bad", "schedule: '* * * * *'\nrunn: x\n").await;
    assert_eq!(pair.tick().await, json!({ "fired": 1, "sent": 1, "troubles": 0, "invalid_jobs": 1 }));
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
