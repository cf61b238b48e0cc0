//! A start whose connection breaks: the script runs once or never, and the next look tells which.

use serde_json::json;
use sshjob::domain::layout::Stream;
use sshjob::domain::task::TaskState;

use super::{age, collect, collector, detached, output, view};
use crate::support::key::Login;
use crate::support::memory::Memory;
use crate::support::proxy::{Fault, Proxies, Record, Way, Wrong};
use crate::support::rig;
use crate::support::sshd::{Spec, Sshd};
use crate::support::world::{World, json, said};

/// Into how many parts a connection is cut each way; each end of a part is one cut.
const PARTS: usize = 16;

/// A cut after so many bytes.
const fn cut(way: Way, after: usize) -> Fault {
    Fault { way, after, wrong: Wrong::Cut }
}

#[tokio::test(flavor = "multi_thread")]
async fn start_that_is_cut_anywhere_resolves_to_what_is_true() {
    let (unconfirmed, never) = resolve_cuts(|record| {
        let each = |way, bytes: usize| (1..PARTS).map(move |n| cut(way, bytes * n / PARTS));
        let faults = each(Way::There, record.there.len()).chain(each(Way::Back, record.back.len()));
        // The answer to the start is among the last packets.
        faults.chain((1..=12).map(|n| cut(Way::Back, record.back.len() - 24 * n))).collect()
    })
    .await;
    assert!(unconfirmed > 0 && never > 0, "{unconfirmed} starts were not confirmed, {never} never came");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_that_is_cut_at_twenty_random_bytes_resolves_to_what_is_true() {
    let random = |below: usize| usize::try_from(getrandom::u32().unwrap()).unwrap() % below;
    resolve_cuts(|record| {
        // Not at the very end: one start has some bytes less than another.
        let of = |n| if n % 2 == 0 { (Way::There, record.there.len()) } else { (Way::Back, record.back.len()) };
        (0..20).map(of).map(|(way, bytes)| cut(way, random(bytes - 64))).collect()
    })
    .await;
}

/// Cuts the connection of one start for each of the `faults`, by what goes over a sound one; what is told of them all at
/// last is what happened. Returns how many were not confirmed, and how many never came.
async fn resolve_cuts(faults: impl FnOnce(&Record) -> Vec<Fault>) -> (usize, usize) {
    let login = Login::fresh();
    let host = Sshd::start(Spec::accepting(login.public()));
    let marks = tempfile::tempdir().unwrap();
    let job = detached(rig::script(&format!(
        "echo $SSHJOB_ATTEMPT >>{}/$SSHJOB_INSTANCE; echo all of it",
        marks.path().display()
    )));
    let sound = Proxies::start(host.address(), &[None]);
    rig::run(&Memory::default(), rig::request(job.clone(), sound.addresses(), "sound"), &login).await.unwrap();
    let faults: Vec<_> = faults(&sound.record()).into_iter().map(Some).collect();
    let proxies = Proxies::start(host.address(), &faults);
    let store = Memory::default();
    let done = rig::run(&store, rig::request(job, proxies.addresses(), "cut"), &login).await.unwrap();
    let run = done.started.run;
    let (mut unconfirmed, mut never) = (0, 0);
    for task in view(&store, &run).await.tasks {
        unconfirmed += usize::from(task.record.state == TaskState::Running && !task.record.confirmed);
    }
    host.wait_until_idle();
    let path = login.path();
    // Within the grace nobody says `lost` of what may still come.
    let round = collector(&store, &run, &path).look(&run).await.unwrap();
    let lost = |state| state == TaskState::Lost;
    assert!(!view(&store, &run).await.tasks.iter().any(|task| lost(task.record.state)), "{round:?}");
    age(&store, &run).await;
    collect(&store, &run, &path).await;
    for task in view(&store, &run).await.tasks {
        let (id, state) = (task.target.instance.as_str(), task.record.state);
        let starts = std::fs::read_to_string(marks.path().join(id)).unwrap_or_default();
        match state {
            TaskState::Succeeded => {
                assert_eq!(starts, "1\n", "{id}: {:?}", task.record);
                assert_eq!(output(&store, &run, id, Stream::Out).await, b"all of it\n", "{id}");
            }
            TaskState::Lost | TaskState::Unreachable => {
                never += 1;
                assert_eq!(starts, "", "{id}: {:?}", task.record);
            }
            other => panic!("{id} is {other}: {:?}", task.record),
        }
    }
    (unconfirmed, never)
}

#[test]
fn start_whose_answer_dies_with_a_shell_is_found_out_and_never_tried_again() {
    let mut world = World::new(2);
    // Whoever should pass the answer on is killed once the supervisor has begun, or before it hears of anything.
    let script = "echo $SSHJOB_ATTEMPT >>$WHERE/$SSHJOB_INSTANCE; echo all of it";
    let job = format!(
        "targets: {{ tags: {{ Environment: Dev }} }}\nrun: {script}\nenv: {{ WHERE: {:?} }}\nmode: detached\n\
         retries: {{ attempts: 3, delay: 10ms, on: [unreachable] }}\n",
        world.path(),
    );
    std::fs::create_dir(world.path().join("jobs")).unwrap();
    std::fs::write(world.path().join("jobs/once.yaml"), job).unwrap();
    for end in ["kill -KILL $$", "exit 137"] {
        let command = format!("ForceCommand sh -c \"$SSH_ORIGINAL_COMMAND\" >/dev/null 2>&1; {end}");
        world.fleet_mut().restart(|spec| spec.lines = vec![command.clone()]);
        let output = world.sshjob(&["-o", "json", "run", "once"]);
        assert_eq!(
            (output.status.code(), &json(&output)["counts"]),
            (Some(0), &json!({"running": 2})),
            "{end}: {}",
            said(&output)
        );
        world.fleet_mut().restart(|spec| spec.lines.clear());
        let output = super::wait(&world);
        assert_eq!(output.status.code(), Some(0), "{end}: {}", said(&output));
        for task in json(&output)["tasks"].as_array().unwrap() {
            assert_eq!((&task["attempt"], &task["stdout"]), (&json!(1), &json!("all of it\n")), "{task:#}");
            let mark = world.path().join(task["instance"].as_str().unwrap());
            assert_eq!(std::fs::read_to_string(&mark).unwrap(), "1\n", "{end}");
            std::fs::remove_file(mark).unwrap();
        }
    }
}
