//! Runs that are followed: every host at its own pace, over a connection that is kept.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sshjob::domain::layout::{Key, RunKeys};
use sshjob::port::{Object, Store, StoreError, Version, Written};

use super::{collect, collector, detached, start, view, wait_for};
use crate::support::key::Login;
use crate::support::memory::Memory;
use crate::support::rig;
use crate::support::sshd::{Spec, Sshd};
use crate::support::wire::{Way, Wire};
use crate::support::world::{World, said};

/// Only there to fail at last.
const DEADLINE: Duration = Duration::from_mins(1);

/// Prints the number of every file `say-0`, `say-1` … as soon as it is there, until there is a file `end`.
const ECHO: &str = "n=0; touch $WHERE/$SSHJOB_INSTANCE
while [ -e $WHERE/say-$n ] || [ ! -e $WHERE/end ]; do
  if [ -e $WHERE/say-$n ]; then echo $n; n=$((n + 1)); else sleep 0.05; fi
done";

/// The lines that a process writes, as they come.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// Has the hosts print each of these numbers once the one before was seen.
fn echo(world: &World, mark: &str, numbers: std::ops::Range<u32>, lines: &Receiver<String>) {
    for n in numbers {
        fs::write(world.path().join(format!("say-{n}")), "").unwrap();
        assert_eq!(lines.recv_timeout(DEADLINE), Ok(format!("{mark}{n}")));
    }
}

#[test]
fn host_that_hangs_holds_up_no_line_of_others() {
    let world = World::new(1);
    let wire = Wire::to(world.fleet().addresses()[0]);
    world.add("wired", wire.address(), "Environment: Dev");
    // A host may take longer to answer than anybody here waits.
    start(&world, &["--connect-timeout", "10m"], ECHO);
    for host in ["host-0", "wired"] {
        wait_for(&world.path().join(host));
    }
    wire.set(Way::Held);
    let mut child = world.command(&["logs", "last", "-f"]).spawn().unwrap();
    let lines = lines_of(&mut child);
    echo(&world, "host-0 | ", 0..4, &lines);
    wire.set(Way::Open);
    fs::write(world.path().join("end"), "").unwrap();
    for n in 0..4 {
        assert_eq!(lines.recv_timeout(DEADLINE), Ok(format!("wired | {n}")));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
}

#[test]
fn one_connection_is_enough_to_follow_a_host_until_it_breaks() {
    let world = World::new(1);
    let wire = Wire::to(world.fleet().addresses()[0]);
    world.add("wired", wire.address(), "Behind: wire, Environment: Dev");
    start(&world, &["-x", "host-0"], ECHO);
    wait_for(&world.path().join("wired"));
    let before = wire.connections();
    let mut child = world.command(&["logs", "last", "-f"]).spawn().unwrap();
    let lines = lines_of(&mut child);
    echo(&world, "wired | ", 0..5, &lines);
    assert_eq!(wire.connections() - before, 1, "one connection for at least five looks");
    wire.set(Way::Reset);
    wire.set(Way::Open);
    echo(&world, "wired | ", 5..8, &lines);
    fs::write(world.path().join("end"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    assert!(lines.recv().is_err(), "nothing was repeated");
}

#[test]
fn one_host_is_followed_alone_to_the_end_of_the_run() {
    let world = World::new(2);
    start(&world, &[], ECHO);
    for host in ["host-0", "host-1"] {
        wait_for(&world.path().join(host));
    }
    let mut child = world.command(&["logs", "--host", "host-1", "-f"]).spawn().unwrap();
    let lines = lines_of(&mut child);
    echo(&world, "host-1 | ", 0..3, &lines);
    fs::write(world.path().join("end"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    assert!(lines.recv().is_err(), "nothing of the other was shown");
    let other = world.sshjob(&["logs", "--host", "host-0", "-f"]);
    assert_eq!(other.stdout, b"host-0 | 0\nhost-0 | 1\nhost-0 | 2\n", "{}", said(&other));
}

/// A store that is a moment behind: what it says first of one object was true before.
#[derive(Debug, Clone)]
struct Behind {
    inner: Memory,
    key: Key,
    before: Arc<Mutex<Option<Object>>>,
}

impl Store for Behind {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let before = self.before.lock().unwrap().take_if(|_| *key == self.key);
        if before.is_some() { Ok(before) } else { self.inner.get(key).await }
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.inner.create(key, bytes).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.inner.swap(key, expected, bytes).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.remove(key).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_another_collector_has_spoiled_is_no_trouble() {
    let (login, folder) = (Login::fresh(), tempfile::tempdir().unwrap());
    let spoiled = folder.path().join("spoiled");
    let mut spec = Spec::accepting(login.public());
    let spoil = format!("[ ! -e {} ] || {{ echo nonsense; exit; }}", spoiled.display());
    spec.lines = vec![format!("ForceCommand {spoil}; sh -c \"$SSH_ORIGINAL_COMMAND\"")];
    let host = Sshd::start(spec);
    let store = Memory::default();
    let request = rig::request(detached(rig::script("echo all of it")), &[host.address()], "one");
    let run = rig::run(&store, request, &login).await.unwrap().started.run;
    let key = RunKeys::new(&run.run).outcomes(0);
    let before = store.get(&key).await.unwrap();
    collect(&store, &run, &login.path()).await;
    fs::write(&spoiled, "").unwrap();
    let behind = Behind { inner: store.clone(), key, before: Arc::new(Mutex::new(before)) };
    let round = collector(&behind, &run, &login.path()).look(&run).await.unwrap();
    assert!(behind.before.lock().unwrap().is_none(), "it was asked");
    assert_eq!((round.running, round.troubles.len()), (0, 0), "{:?}", round.troubles);
    assert!(view(&store, &run).await.verdict.is_some());
}
