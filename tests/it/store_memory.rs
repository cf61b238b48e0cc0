//! The store in memory goes wrong exactly where a test says.

use sshjob::domain::layout::Key;
use sshjob::port::{Store, Written};

use crate::support::memory::{Fault, Memory, Write};

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// Creates `a`, `b` and `c`; stops where a call fails.
async fn create_three(store: &Memory) -> Option<()> {
    for name in ["a", "b", "c"] {
        store.create(&key(name), Vec::new()).await.ok()?;
    }
    Some(())
}

fn names(store: &Memory) -> Vec<String> {
    store.objects().into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn write_with_an_injected_error_fails_before_or_after_it_is_done() {
    let store = Memory::default().with_fault(2, Fault::ErrorBefore).with_fault(4, Fault::ErrorAfter);
    assert_eq!(create_three(&store).await, None);
    assert_eq!(names(&store), ["a"]);
    // The third write finds `a` there, the fourth is `b`.
    assert_eq!(create_three(&store).await, None);
    assert_eq!(names(&store), ["a", "b"]);
    store.remove(&key("a")).await.unwrap();
    let created = ["a", "b", "a", "b"].map(|name| Write::Create(key(name)));
    assert_eq!(store.writes(), [created.as_slice(), &[Write::Remove(key("a"))]].concat());
}

#[tokio::test]
async fn crash_ends_one_machine_and_leaves_what_was_written() {
    for (fault, left) in [(Fault::CrashBefore, vec!["a"]), (Fault::CrashAfter, vec!["a", "b"])] {
        let store = Memory::default().with_fault(2, fault);
        tokio::select! {
            _ = create_three(&store) => panic!("it went on after its crash"),
            () = store.crashed() => {}
        }
        let other = store.reboot();
        assert_eq!(names(&other), left);
        assert_ne!(other.create(&key("c"), Vec::new()).await.unwrap(), Written::Conflict);
    }
}
