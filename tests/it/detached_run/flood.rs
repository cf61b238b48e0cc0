//! Much output, followed live: every byte, in little memory, over a connection that breaks.

use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sshjob::domain::layout::{Key, RunKeys, Stream};
use sshjob::engine::pieces::{Piece, Pieces};
use sshjob::engine::records::Runs;
use sshjob::port::{Object, Store, StoreError, Version, Written};

use super::{start, wait_for};
use crate::burden::peak_memory;
use crate::support::memory::Memory;
use crate::support::wire::{Way, Wire};
use crate::support::world::{World, said};

/// The length of a line, with its end.
const LINE_BYTES: usize = 1000;

/// The most memory that the program may ever have used, in KiB.
const MOST_MEMORY: u64 = 100 * 1024;

/// Follows `lines` different lines, none missing, doubled or out of its place, while the connection breaks three times.
fn follow(lines: u32) -> (Duration, u64) {
    let world = World::new(1);
    let wire = Wire::to(world.fleet().addresses()[0]);
    world.add("wired", wire.address(), "Environment: Dev, Behind: wire");
    let flood = format!("touch $WHERE/$SSHJOB_INSTANCE; seq -f %0{}.0f {lines}", LINE_BYTES - 1);
    start(&world, &["-x", "host-0"], &flood);
    wait_for(&world.path().join("wired"));
    let began = Instant::now();
    let mut child = world.command(&["logs", "last", "-f"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut peak) = (Vec::new(), 0);
    for number in 1..=lines {
        line.clear();
        out.read_until(b'\n', &mut line).unwrap();
        let expected = format!("wired | {number:0width$}\n", width = LINE_BYTES - 1);
        if line != expected.as_bytes() {
            child.kill().unwrap();
            let found = String::from_utf8_lossy(&line).into_owned();
            panic!("line {number} is {found:?}: {}", said(&child.wait_with_output().unwrap()));
        }
        if number % (lines / 4) == 0 && number < lines {
            wire.set(Way::Reset);
            wire.set(Way::Open);
        }
        if number % 1000 == 0 {
            peak = peak_memory(&child).unwrap_or(peak);
        }
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    (began.elapsed(), peak)
}

#[test]
fn flood_of_300_mb_is_followed_whole_in_bounded_memory_across_cut_connections() {
    let (took, peak) = follow(300_000);
    eprintln!("300 MB followed in {took:.1?}, with at most {peak} KiB");
    assert!(peak < MOST_MEMORY, "{peak} KiB");
}

#[test]
fn host_that_floods_holds_up_no_line_of_others() {
    let world = World::new(2);
    // Three times as much as is shown of a host at a time; it is all there before anybody reads, as where one reads slowly.
    let lines = 12_000;
    let script = format!(
        "case $SSHJOB_INSTANCE in host-0) seq -f %0{}.0f {lines} ;; *) echo here ;; esac\n\
         touch $WHERE/$SSHJOB_INSTANCE; while [ ! -e $WHERE/go ]; do sleep 0.05; done",
        LINE_BYTES - 1
    );
    start(&world, &[], &script);
    for host in ["host-0", "host-1"] {
        wait_for(&world.path().join(host));
    }
    assert!(world.sshjob(&["status", "last"]).status.success());
    let mut child = world.command(&["logs", "last", "-f"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let before = out.by_ref().take_while(|line| line != "host-1 | here").count();
    assert!(before * LINE_BYTES < 5 << 20, "{before} lines came first");
    std::fs::write(world.path().join("go"), "").unwrap();
    assert_eq!(before + out.count(), lines, "and nothing is left out");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// A store whose first list was made while its second name was added: it lacks it, and has what came after.
#[derive(Debug, Clone)]
struct Overtaken {
    inner: Memory,
    listed: Arc<AtomicBool>,
}

impl Store for Overtaken {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.inner.get(key).await
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.inner.create(key, bytes).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.inner.swap(key, expected, bytes).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let mut keys = self.inner.list(prefix, after, limit).await?;
        if !self.listed.swap(true, Ordering::SeqCst) {
            keys.remove(1);
        }
        Ok(keys)
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.remove(key).await
    }
}

#[tokio::test]
async fn piece_that_a_list_has_overtaken_is_not_missing() {
    let store = Overtaken { inner: Memory::default(), listed: Arc::default() };
    let (run, instance) = ("adhoc-20261122T221500Z-00000000".parse().unwrap(), "web-1".parse().unwrap());
    for (offset, bytes) in [(0, "one "), (4, "two "), (8, "three")] {
        let key = RunKeys::new(&run).output(&instance, 1, Stream::Out, offset);
        store.create(&key, bytes.into()).await.unwrap();
    }
    let runs = Runs::new(store);
    let mut pieces = Pieces::new(&runs, &run, &instance, 1, Stream::Out);
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        let Piece::Bytes { bytes, .. } = piece else { panic!("{piece:?}") };
        all.extend(bytes);
    }
    assert_eq!(all, b"one two three");
}
