//! A fault of the program in the task of one host: it is told, its task comes to an end, and no other is touched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sshjob::domain::run::RunRecord;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::Clock;
use sshjob::engine::records::Runs;
use sshjob::engine::task::{Attempt, Fleet, Task};
use sshjob::engine::worker::WorkError;

use super::unavailable::work;
use super::{Pair, firing, id};
use crate::support::key::Login;
use crate::support::memory::Memory;

/// Hosts of which one is the end of whoever reaches it, and another of whoever runs something on it.
#[derive(Clone)]
struct Cursed {
    at_reach: String,
    at_run: String,
    reached: Arc<AtomicUsize>,
}

impl Fleet<Memory> for Cursed {
    type Ready = ();

    async fn reach(&self, task: &Task<'_, Memory, Self>, _: &mut TaskRecord) -> Result<(), (TaskState, String)> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        assert_ne!(task.target.instance.as_str(), self.at_reach, "nobody comes\nto this host");
        Ok(())
    }

    async fn run(&self, task: &Task<'_, Memory, Self>, (): (), record: TaskRecord) -> Attempt {
        assert_ne!(task.target.instance.as_str(), self.at_run, "nobody returns from this host");
        let finished_at = Some(task.worker.clock.now());
        TaskRecord { state: TaskState::Succeeded, exit_code: Some(0), finished_at, ..record }.into()
    }

    async fn look_after(&self, _: &Runs<Memory>, _: &RunRecord, _: Clock) {}
}

#[tokio::test(start_paused = true)]
async fn task_that_panics_is_told_of_ends_and_is_sent_for_no_more() {
    let hosts: Vec<SocketAddr> = (1..=4).map(|n| ([127, 0, 0, n], 22).into()).collect();
    let mut pair = Pair::new(&hosts, &Login::fresh());
    pair.job("once", "schedule: '0 12 * * *'\nrun: x\n").await;
    pair.set_time(-60);
    pair.tick().await;
    pair.set_time(0);
    pair.tick().await;
    let cursed = Cursed { at_reach: id(&hosts[0]), at_run: id(&hosts[1]), reached: Arc::default() };
    let [order] = pair.orders().try_into().unwrap();
    let done = work(pair.runs(), pair.worker.clock, &cursed, &order).await;
    let Err(WorkError::Panicked(why)) = done else { panic!("{done:?}") };
    assert!(why.contains("this host") && !why.contains('\n'), "{why}");
    assert_eq!(cursed.reached.load(Ordering::SeqCst), 4);
    let states = pair.states(&firing("once")).await;
    let of =
        |state| states.iter().filter(|(found, _)| *found == state).map(|(_, why)| why.as_str()).collect::<Vec<_>>();
    assert_eq!(of(TaskState::Succeeded), ["", ""]);
    let [skipped] = of(TaskState::Skipped).try_into().unwrap();
    assert!(skipped.starts_with("a fault of sshjob: ") && skipped.contains("nobody comesto this host"), "{skipped}");
    let [lost] = of(TaskState::Lost).try_into().unwrap();
    assert!(lost.starts_with("worker: a fault of sshjob: ") && lost.contains("nobody returns"), "{lost}");
    // The same order again, as Lambda does after a failure.
    work(pair.runs(), pair.worker.clock, &cursed, &order).await.unwrap();
    assert_eq!(cursed.reached.load(Ordering::SeqCst), 4);
    pair.set_time(60);
    pair.tick().await;
    assert!(pair.orders().is_empty());
    assert_eq!(pair.verdict(&firing("once")).await.as_deref(), Some("failed"));
}
