//! Inventories that do not answer: they are in nobody's way.

use std::time::Duration;

use sshjob::engine::control;
use sshjob::engine::looks::Looks;
use tokio::time::{Instant, sleep};

use super::*;

#[tokio::test(start_paused = true)]
async fn inventory_that_hangs_holds_up_its_own_run_alone() {
    let rig = Rig::new(&[("a", EVERY_MINUTE), ("b", EVERY_MINUTE), ("c", EVERY_MINUTE)]);
    *rig.around.silent.lock().unwrap() = Some("b".to_owned());
    let ticked = rig.tick("12:00:00").await;
    let told = ticked.runs.iter().map(|(run, standing)| match standing {
        Standing::Ready(_) => format!("{run} ready"),
        Standing::Waiting(why) | Standing::Unselected(why) => format!("{run} waiting: {why}"),
        other => format!("{run} {other:?}"),
    });
    let silent = "cannot read the inventory `of the job`: it has not answered within 60 s";
    let b = format!("b-20261122T120000Z waiting: {silent}");
    assert_eq!(told.collect::<Vec<_>>(), ["a-20261122T120000Z ready", &b, "c-20261122T120000Z ready"]);
    rig.tick("12:10:01").await;
    let all = rig.told().await;
    assert!(all.contains(&format!("b-20261122T120000Z failed: {silent}")), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn inventory_that_does_not_answer_is_no_empty_fleet() {
    let rig = Rig::new(&[("a", "schedule: '0 12 * * *'\n")]);
    *rig.around.inventory_down.lock().unwrap() = true;
    let ticked = rig.tick("12:00:00").await;
    assert!(matches!(&ticked.runs[..], [(_, Standing::Unselected(why))] if why.contains("throttled")), "{ticked:?}");
    rig.tick("12:09:00").await;
    assert_eq!(rig.told().await, ["a-20261122T120000Z planning"]);
    rig.tick("12:10:01").await;
    assert_eq!(rig.told().await, ["a-20261122T120000Z failed: cannot read the inventory `ec2`: throttled"]);
}

/// Ends the run of a standing that nobody drives yet, as whoever it is handed to does.
async fn end(rig: &Rig, standing: Standing) {
    let Standing::Ready(started) = standing else { panic!("{standing:?}") };
    write_verdict(&rig.runs, &started.run, skip("enough".to_owned(), at("12:00:40"))).await.unwrap();
}

/// Cause: whoever ticked waited for all that it had asked, and nothing fired until then.
#[tokio::test(start_paused = true)]
async fn inventory_that_hangs_holds_up_neither_another_job_nor_its_next_firing() {
    let rig = Rig::new(&[("a", EVERY_MINUTE), ("b", EVERY_MINUTE)]);
    *rig.around.silent.lock().unwrap() = Some("a".to_owned());
    rig.tick("11:59:30").await;
    let (began, ticker, mut looks) = (Instant::now(), rig.ticker(at("12:00:30")), Looks::default());
    for (time, wanted) in [("12:00:30", "b-20261122T120000Z"), ("12:01:10", "b-20261122T120100Z")] {
        let found = ticker.tick(&rig.jobs, at(time)).await.unwrap();
        assert_eq!(found.fired.len(), 2);
        looks.begin(ticker.clone(), found.active);
        let (run, found) = looks.next().await.unwrap();
        assert_eq!(run.as_str(), wanted);
        end(&rig, found.unwrap().unwrap()).await;
        sleep(at("12:01:10").duration_since(at("12:00:30")).unsigned_abs()).await;
    }
    // It is asked once for each run, however often a tick comes to it, and gives up each by itself.
    assert_eq!(rig.around.asked.load(Ordering::SeqCst), 2);
    let mut late = Vec::new();
    while let Some((run, found)) = looks.next().await {
        assert!(matches!(found, Ok(Some(Standing::Unselected(_)))), "{found:?}");
        late.push((run.to_string(), began.elapsed().as_secs()));
    }
    let run = |minute: &str| format!("a-20261122T12{minute}00Z");
    // The first came to its end while the test slept.
    assert_eq!(late, [(run("00"), 80), (run("01"), 100)]);
}

#[tokio::test(start_paused = true)]
async fn inventories_that_hang_for_many_runs_hold_up_no_other_for_long() {
    let rig = Rig::new(&[("a", "schedule: '* * * * *'\noverlap: allow\ndeadline: 2h\n"), ("b", EVERY_MINUTE)]);
    *rig.around.silent.lock().unwrap() = Some("a".to_owned());
    rig.ticker(at("11:00:00")).tick(&rig.jobs, at("11:00:00")).await.unwrap();
    let (began, ticker) = (Instant::now(), rig.ticker(at("12:00:00")));
    let found = ticker.tick(&rig.jobs, at("12:00:00")).await.unwrap();
    let mut looks = Looks::default();
    looks.begin(ticker, found.active);
    let mut took = Duration::ZERO;
    while let Some((run, _)) = looks.next().await {
        if run.as_str() == "b-20261122T120000Z" {
            took = began.elapsed();
        }
    }
    // Sixteen at a time, each for five seconds.
    assert_eq!((rig.around.asked.load(Ordering::SeqCst), took.as_secs()), (61, 15));
}

#[tokio::test(start_paused = true)]
async fn run_that_is_paused_before_it_is_planned_waits_for_its_deadline_and_no_longer() {
    const HOURLY: &str = "schedule: '0 * * * *'\noverlap: allow\n";
    let rig = Rig::new(&[("a", HOURLY), ("b", HOURLY)]);
    *rig.around.inventory_down.lock().unwrap() = true;
    rig.tick("12:00:00").await;
    *rig.around.inventory_down.lock().unwrap() = false;
    let [a, b]: [RunId; 2] = ["a", "b"].map(|job| format!("{job}-20261122T120000Z").parse().unwrap());
    for run in [&a, &b] {
        control::pause(&rig.runs, run, "ann").await.unwrap();
    }
    let ticked = rig.tick("12:05:00").await;
    for (_, standing) in &ticked.runs {
        assert!(matches!(standing, Standing::Waiting(why) if why == "paused by ann"), "{standing:?}");
    }
    assert_eq!(rig.told().await, [&a, &b].map(|run| format!("{run} paused: paused by ann")));
    control::resume(&rig.runs, &b, "bob").await.unwrap();
    rig.tick("12:09:59").await;
    assert_eq!(rig.told().await, [format!("{a} paused: paused by ann"), format!("{b} running")]);
    rig.tick("12:10:01").await;
    assert_eq!(rig.told().await, [format!("{a} skipped: paused past its deadline"), format!("{b} running")]);
}
