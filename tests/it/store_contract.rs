//! What every store promises, asked of each of them in the same words.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sshjob::domain::layout::Key;
use sshjob::port::{Store, Version, Written};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Asks all questions of the store that `$open` gives, together with what must stay alive while it is used; of one that is
/// used by one task `alone`, those that need no others.
macro_rules! contract {
    ($store:ident, $open:expr) => {
        mod $store {
            contract!(@alone $open);
            contract!(@each $open;
                create_among_racing_tasks_lets_one_win,
                swap_by_many_tasks_loses_no_update,
                get_while_large_contents_are_swapped_sees_whole_objects,
                list_pages_through_everything_in_byte_order,
                remove_while_others_create_next_to_it_loses_nothing,
            );
        }
    };
    (alone $store:ident, $open:expr) => {
        mod $store {
            contract!(@alone $open);
        }
    };
    (@alone $open:expr) => {
        contract!(@each $open;
            create_of_an_existing_object_changes_nothing,
            swap_of_an_absent_object_is_a_conflict,
            swap_of_a_removed_object_is_a_conflict,
            get_of_an_absent_object_is_none,
            list_takes_a_prefix_that_ends_inside_a_segment,
            list_of_nothing_is_empty,
            remove_twice_is_no_error,
            keys_of_every_allowed_character_are_kept_apart,
            contents_of_every_kind_come_back,
        );
    };
    (@each $open:expr; $($question:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $question() {
            let (_alive, store) = $open;
            super::$question(store).await;
        }
    )*};
}

contract!(dir, {
    let root = tempfile::tempdir().unwrap();
    let store = sshjob::adapter::dir::Dir::open(root.path().join("store")).unwrap();
    (root, store)
});
contract!(memory, ((), crate::support::memory::Memory::default()));
#[cfg(feature = "aws")]
contract!(s3, {
    let Some(bucket) = crate::aws::bucket().await else { return };
    bucket
});
// moto compares and writes in two steps: of those who race, two may win; and thousands at once are too many for it.
#[cfg(feature = "aws")]
contract!(alone other_s3, {
    let Some(bucket) = crate::aws::other_bucket().await else { return };
    bucket
});

fn key(text: &str) -> Key {
    Key::parse(text).unwrap_or_else(|| panic!("`{text}` is no key"))
}

fn done(written: Written) -> Version {
    match written {
        Written::Done(version) => version,
        Written::Conflict => panic!("a conflict where nobody else writes"),
    }
}

async fn content(store: &impl Store, at: &str) -> Option<String> {
    store.get(&key(at)).await.unwrap().map(|object| String::from_utf8(object.bytes).unwrap())
}

async fn listed(store: &impl Store, prefix: &str) -> Vec<String> {
    store.list(prefix, None, usize::MAX).await.unwrap().iter().map(Key::to_string).collect()
}

/// Runs `n` tasks that start together, and gives what each returned, in order.
async fn race<T, F>(n: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(n));
    let mut tasks = JoinSet::new();
    for i in 0..n {
        let (start, task) = (Arc::clone(&start), task(i));
        tasks.spawn(async move {
            start.wait().await;
            (i, task.await)
        });
    }
    let mut results = tasks.join_all().await;
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Adds one to the number that the object holds, however often others come first.
async fn increment(store: &impl Store, at: &Key) {
    loop {
        let object = store.get(at).await.unwrap().expect("the counter is there");
        let count: u64 = String::from_utf8(object.bytes).unwrap().parse().unwrap();
        if store.swap(at, &object.version, (count + 1).to_string().into()).await.unwrap() != Written::Conflict {
            return;
        }
    }
}

async fn create_among_racing_tasks_lets_one_win(store: impl Store) {
    for round in 0..5 {
        let at = key(&format!("runs/job/run-{round}/batches/0.claim"));
        let results = race(32, |i| {
            let (store, at) = (store.clone(), at.clone());
            async move { store.create(&at, format!("task {i}").into()).await.unwrap() }
        })
        .await;
        let winners: Vec<usize> = (0..32).filter(|i| results[*i] != Written::Conflict).collect();
        assert_eq!(winners.len(), 1, "of {winners:?} one may win");
        assert_eq!(content(&store, at.as_str()).await, Some(format!("task {}", winners[0])));
        let object = store.get(&at).await.unwrap().unwrap();
        assert_eq!(Written::Done(object.version), results[winners[0]]);
    }
}

async fn create_of_an_existing_object_changes_nothing(store: impl Store) {
    let first = done(store.create(&key("a/b"), b"first".to_vec()).await.unwrap());
    assert_eq!(store.create(&key("a/b"), b"second".to_vec()).await.unwrap(), Written::Conflict);
    let object = store.get(&key("a/b")).await.unwrap().unwrap();
    assert_eq!((object.bytes, object.version), (b"first".to_vec(), first));
}

async fn swap_by_many_tasks_loses_no_update(store: impl Store) {
    let at = key("state/counter");
    done(store.create(&at, b"0".to_vec()).await.unwrap());
    race(8, |_| {
        let (store, at) = (store.clone(), at.clone());
        async move {
            for _ in 0..10 {
                increment(&store, &at).await;
            }
        }
    })
    .await;
    assert_eq!(content(&store, at.as_str()).await.as_deref(), Some("80"));
}

async fn swap_of_an_absent_object_is_a_conflict(store: impl Store) {
    let version = done(store.create(&key("a"), b"x".to_vec()).await.unwrap());
    assert_eq!(store.swap(&key("b"), &version, b"y".to_vec()).await.unwrap(), Written::Conflict);
    assert_eq!(store.swap(&key("c/d"), &version, b"y".to_vec()).await.unwrap(), Written::Conflict);
    assert_eq!(listed(&store, "").await, ["a"]);
}

async fn swap_of_a_removed_object_is_a_conflict(store: impl Store) {
    let first = done(store.create(&key("a/b"), b"x".to_vec()).await.unwrap());
    let second = done(store.swap(&key("a/b"), &first, b"y".to_vec()).await.unwrap());
    assert_eq!(store.swap(&key("a/b"), &first, b"z".to_vec()).await.unwrap(), Written::Conflict);
    store.remove(&key("a/b")).await.unwrap();
    assert_eq!(store.swap(&key("a/b"), &second, b"z".to_vec()).await.unwrap(), Written::Conflict);
    assert_eq!(content(&store, "a/b").await, None);
}

async fn get_of_an_absent_object_is_none(store: impl Store) {
    done(store.create(&key("a/b/c"), Vec::new()).await.unwrap());
    for absent in ["x", "x/y", "a", "a/b", "a/b/d", "a/b/c/d"] {
        assert_eq!(content(&store, absent).await, None, "{absent}");
    }
}

async fn get_while_large_contents_are_swapped_sees_whole_objects(store: impl Store) {
    let at = key("runs/job/run/batches/0.json");
    let page = |n: u8| vec![b'a' + n; 300_000 + usize::from(n)];
    let mut version = done(store.create(&at, page(0)).await.unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, at, over) = (store.clone(), at.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut seen = 0_u32;
                while !over.load(Ordering::Relaxed) || seen == 0 {
                    let bytes = store.get(&at).await.unwrap().expect("it is never gone").bytes;
                    let first = bytes[0];
                    assert_eq!(bytes.len(), 300_000 + usize::from(first - b'a'));
                    assert!(bytes.iter().all(|byte| *byte == first));
                    seen += 1;
                }
            })
        })
        .collect();
    for n in (0..20).cycle().take(60) {
        version = done(store.swap(&at, &version, page(n)).await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}

async fn list_pages_through_everything_in_byte_order(store: impl Store) {
    let mut all: Vec<String> = (0..1100).map(|n| format!("runs/job/{}/{n}.json", n % 7)).collect();
    // `-`, `.` and `,` sort before `/`, digits and letters after it.
    all.extend(["runs/job-1/a", "runs/job.d/a", "runs/job,x/a", "runs/job0/a", "runs/jobs/a"].map(str::to_owned));
    race(all.len(), |i| {
        let (store, at) = (store.clone(), key(&all[i]));
        async move { done(store.create(&at, Vec::new()).await.unwrap()) }
    })
    .await;
    all.sort_unstable();
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.list("runs/", after.as_ref(), 100).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 100);
        pages += 1;
        after = page.last().cloned();
        seen.extend(page.iter().map(Key::to_string));
    }
    assert_eq!(seen, all);
    assert_eq!(pages, all.len().div_ceil(100));
    // A page may start after a key that never was.
    let rest = store.list("runs/job/6/", Some(&key("runs/job/6/13")), 2).await.unwrap();
    assert_eq!(rest, [key("runs/job/6/13.json"), key("runs/job/6/132.json")]);
    let rest = store.list("runs/job/6/", Some(&key("runs/job/5/zzz")), 1).await.unwrap();
    assert_eq!(rest, [key("runs/job/6/1000.json")]);
    assert_eq!(store.list("runs/job/5/", Some(&key("runs/job/6")), 9).await.unwrap(), []);
    assert_eq!(store.list("runs/", None, 0).await.unwrap(), []);
}

async fn list_takes_a_prefix_that_ends_inside_a_segment(store: impl Store) {
    let output = "runs/x/y/output/i";
    for piece in ["1.err.0", "1.out.0", "1.out.64", "10.out.0", "2.out.0"] {
        done(store.create(&key(&format!("{output}/{piece}")), Vec::new()).await.unwrap());
    }
    done(store.create(&key("runs/x/yy/run.json"), Vec::new()).await.unwrap());
    let under = |pieces: &[&str]| pieces.iter().map(|piece| format!("{output}/{piece}")).collect::<Vec<_>>();
    assert_eq!(listed(&store, "runs/x/y/output/i/1.out.").await, under(&["1.out.0", "1.out.64"]));
    assert_eq!(listed(&store, "runs/x/y/output/i/1").await, under(&["1.err.0", "1.out.0", "1.out.64", "10.out.0"]));
    assert_eq!(listed(&store, "runs/x/y/output/i/1.out.64").await, under(&["1.out.64"]));
    assert_eq!(listed(&store, "runs/x/yy").await, ["runs/x/yy/run.json"]);
    assert_eq!(listed(&store, "runs/x/y").await.len(), 6);
    assert_eq!(listed(&store, "ru").await.len(), 6);
}

async fn list_of_nothing_is_empty(store: impl Store) {
    assert!(listed(&store, "").await.is_empty());
    done(store.create(&key("a/b"), Vec::new()).await.unwrap());
    for prefix in ["b", "a/b/", "a/c", "a//", "/", "../", "./", "a/../", "a/b/c/d", "ä", "\0"] {
        assert!(listed(&store, prefix).await.is_empty(), "{prefix:?}");
    }
}

async fn remove_twice_is_no_error(store: impl Store) {
    done(store.create(&key("a/b/c"), b"x".to_vec()).await.unwrap());
    done(store.create(&key("a/d"), b"y".to_vec()).await.unwrap());
    for absent in ["a/b", "a", "x", "a/b/c/d"] {
        store.remove(&key(absent)).await.unwrap();
    }
    assert_eq!(listed(&store, "").await, ["a/b/c", "a/d"]);
    store.remove(&key("a/b/c")).await.unwrap();
    store.remove(&key("a/b/c")).await.unwrap();
    assert_eq!(listed(&store, "").await, ["a/d"]);
    done(store.create(&key("a/b/c"), b"again".to_vec()).await.unwrap());
    assert_eq!(content(&store, "a/b/c").await.as_deref(), Some("again"));
}

async fn remove_while_others_create_next_to_it_loses_nothing(store: impl Store) {
    race(8, |task| {
        let store = store.clone();
        async move {
            for n in 0..25 {
                let (kept, gone) = (key(&format!("a/{n}/b/kept-{task}")), key(&format!("a/{n}/b/gone-{task}")));
                done(store.create(&gone, Vec::new()).await.unwrap());
                store.remove(&gone).await.unwrap();
                done(store.create(&kept, Vec::new()).await.unwrap());
            }
        }
    })
    .await;
    let expected: BTreeSet<String> =
        (0..25).flat_map(|n| (0..8).map(move |task| format!("a/{n}/b/kept-{task}"))).collect();
    assert_eq!(listed(&store, "a/").await.into_iter().collect::<BTreeSet<_>>(), expected);
}

async fn keys_of_every_allowed_character_are_kept_apart(store: impl Store) {
    let characters = (0x21..0x7f_u8).map(char::from).filter(|c| *c != '/' && Key::parse(&format!("x{c}")).is_some());
    let mut keys: Vec<String> = characters.flat_map(|c| [format!("x{c}/y"), format!("x/{c}{c}y")]).collect();
    keys.extend([".hidden/.tmp".to_owned(), "z".repeat(255), ["d"; 500].join("/")]);
    keys.retain(|text| Key::parse(text).is_some());
    assert!(keys.len() > 140, "{}", keys.len());
    for at in &keys {
        done(store.create(&key(at), at.clone().into()).await.unwrap());
    }
    for at in &keys {
        assert_eq!(content(&store, at).await.as_ref(), Some(at));
    }
    keys.sort_unstable();
    assert_eq!(listed(&store, "").await, keys);
}

async fn contents_of_every_kind_come_back(store: impl Store) {
    for (at, bytes) in [("empty", Vec::new()), ("bytes", (0..=255).collect()), ("large", vec![7; 5_000_000])] {
        let version = done(store.create(&key(at), bytes.clone()).await.unwrap());
        let object = store.get(&key(at)).await.unwrap().unwrap();
        assert!(object.bytes == bytes && object.version == version, "{at}");
    }
}
