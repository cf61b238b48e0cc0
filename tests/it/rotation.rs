//! Host keys that rotate: what a trusted host proves to have is pinned beside what is there, before it is needed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use russh::keys::PrivateKey;
use sshjob::adapter::dir::Dir;
use sshjob::domain::job::HostKeyPolicy;
use sshjob::domain::run::Pin;
use sshjob::domain::task::TaskState;
use sshjob::engine::pins::{Place, add, import};
use sshjob::engine::records::Runs;
use sshjob::engine::trust::pin_key;
use sshjob::port::Store as _;

use crate::support::key::{self, Login};
use crate::support::memory::Memory;
use crate::support::rig;
use crate::support::sshd::{Spec, Sshd};

/// A store, a host, and whoever may log in there.
struct Bench {
    folder: tempfile::TempDir,
    store: Dir,
    login: Login,
    host: Sshd,
}

impl Bench {
    /// A host whose first key is `key`, and that has `more`.
    fn new(key: &PrivateKey, more: &[&PrivateKey]) -> Self {
        let (folder, login) = (tempfile::tempdir().unwrap(), Login::fresh());
        let store = Dir::open(folder.path().join("store")).unwrap();
        let lines = more.iter().map(|key| line(folder.path(), key)).collect();
        let host = Sshd::start(Spec { host_key: key.clone(), lines, ..Spec::accepting(login.public()) });
        Self { folder, store, login, host }
    }

    fn address(&self) -> SocketAddr {
        self.host.address()
    }

    /// From now on the host has `key` and `more`.
    fn rotate(&mut self, key: &PrivateKey, more: &[&PrivateKey]) {
        let lines = more.iter().map(|key| line(self.folder.path(), key)).collect();
        self.host.restart(|spec| {
            spec.host_key = key.clone();
            spec.lines = lines;
        });
    }

    async fn run(&self, policy: HostKeyPolicy, id: &str) -> (TaskState, String) {
        let mut job = rig::script("true");
        job.login.host_key = policy;
        let done = rig::run(&self.store, rig::request(job, &[self.address()], id), &self.login).await.unwrap();
        done.state(self.address())
    }

    /// The pinned keys and how they came to be trusted.
    async fn pin(&self) -> Option<(Vec<String>, String)> {
        let key = pin_key(&rig::target(self.address()));
        let (pin, _) = Runs::new(self.store.clone()).read::<Pin>(&key).await.unwrap()?;
        Some((pin.keys, pin.origin))
    }

    async fn import(&self, key: &PrivateKey) {
        let target = rig::target(self.address());
        let place = Place::new(&target.account, &target.region, target.instance);
        let keys = [text(key).parse().unwrap()];
        import(&Runs::new(self.store.clone()), &place, "imported", &keys, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    }
}

/// A line of configuration that gives a host one more key.
fn line(folder: &Path, key: &PrivateKey) -> String {
    let name = key.fingerprint(russh::keys::HashAlg::Sha256).to_string().replace(['/', ':'], "_");
    let path: PathBuf = folder.join(name);
    key::write(key, &path);
    format!("HostKey {}", path.display())
}

fn text(key: &PrivateKey) -> String {
    let mut key = key.public_key().clone();
    key.set_comment("");
    key.to_openssh().unwrap()
}

/// A key of another type than [`key::fresh`] makes: a daemon has one of each.
fn ecdsa() -> PrivateKey {
    generated("ecdsa")
}

fn generated(kind: &str) -> PrivateKey {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let made = std::process::Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(&file).status();
    assert!(made.unwrap().success());
    PrivateKey::read_openssh_file(&file).unwrap()
}

const OK: (TaskState, String) = (TaskState::Succeeded, String::new());

#[tokio::test(flavor = "multi_thread")]
async fn host_that_rotates_its_key_stays_trusted() {
    let (old, new) = (key::fresh(), key::fresh());
    let mut bench = Bench::new(&old, &[]);
    assert_eq!(bench.run(HostKeyPolicy::Pinned, "before").await, OK);
    assert_eq!(bench.pin().await, Some((vec![text(&old)], "first use".to_owned())));
    bench.rotate(&old, &[&new]);
    assert_eq!(bench.run(HostKeyPolicy::Pinned, "during").await, OK);
    // The origin stays, and so does the key that is about to go: only people forget.
    assert_eq!(bench.pin().await, Some((vec![text(&old), text(&new)], "first use".to_owned())));
    bench.rotate(&new, &[]);
    assert_eq!(bench.run(HostKeyPolicy::Pinned, "after").await, OK);
    assert_eq!(bench.pin().await, Some((vec![text(&old), text(&new)], "first use".to_owned())));
    bench.rotate(&key::fresh(), &[]);
    assert_eq!(bench.run(HostKeyPolicy::Pinned, "never seen").await.0, TaskState::HostKeyRejected);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_with_keys_of_several_types_is_asked_for_the_pinned_one() {
    let (ed25519, ecdsa, rsa) = (key::fresh(), ecdsa(), generated("rsa"));
    let bench = Bench::new(&ed25519, &[&ecdsa, &rsa]);
    for known in [&ecdsa, &rsa] {
        let key = pin_key(&rig::target(bench.address()));
        bench.store.remove(&key).await.unwrap();
        bench.import(known).await;
        let id = known.algorithm().to_string();
        assert_eq!(bench.run(HostKeyPolicy::Strict, &id).await, OK, "{id}");
        // What it proves beside is vouched for by the imported one.
        let (mut keys, origin) = bench.pin().await.unwrap();
        assert_eq!((keys[0].as_str(), origin.as_str()), (text(known).as_str(), "imported"));
        let mut all = [&ed25519, &ecdsa, &rsa].map(text);
        keys.sort();
        all.sort();
        assert_eq!(keys, all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_learned_where_nothing_is_pinned() {
    let bench = Bench::new(&key::fresh(), &[&ecdsa()]);
    assert_eq!(bench.run(HostKeyPolicy::Off, "off").await, OK);
    assert_eq!(bench.pin().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_whose_keys_are_known_is_asked_for_no_proof() {
    let (old, new) = (key::fresh(), ecdsa());
    let mut bench = Bench::new(&old, &[&new]);
    bench.host.restart(|spec| spec.lines.push("LogVerbose serverloop.c:*".to_owned()));
    assert_eq!(bench.run(HostKeyPolicy::Pinned, "one").await, OK);
    let asked = |bench: &Bench| bench.host.log().matches("hostkeys-prove-00@openssh.com").count();
    assert_eq!(asked(&bench), 1, "{}", bench.host.log());
    assert_eq!(bench.run(HostKeyPolicy::Pinned, "two").await, OK);
    assert_eq!(asked(&bench), 1);
}

#[tokio::test]
async fn pin_that_people_have_changed_or_that_is_full_takes_nothing_in() {
    let runs = Runs::new(Memory::default());
    let place = Place::new("host", "host", "web".parse().unwrap());
    let at = sshjob::domain::layout::trust("host", "host", &"web".parse().unwrap());
    let keys: Vec<_> = (0..70).map(|_| text(&key::fresh()).parse().unwrap()).collect();
    let add = async |by: usize, new: &[_]| add(&runs, &at, &keys[by], new).await.unwrap();
    // Forgotten meanwhile: it does not come back by itself.
    assert_eq!(add(0, &keys[1..2]).await, 0);
    assert_eq!(runs.read::<Pin>(&at).await.unwrap(), None);
    import(&runs, &place, "web", &keys[..1], jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    // Imported anew meanwhile, without the key by which the host has proven the others.
    assert_eq!(add(5, &keys[1..2]).await, 0);
    assert_eq!(add(0, &keys[..2]).await, 1);
    assert_eq!(add(0, &keys).await, 62);
    assert_eq!(runs.read::<Pin>(&at).await.unwrap().unwrap().0.keys.len(), 64);
}
