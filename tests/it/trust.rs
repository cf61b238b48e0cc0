//! Whose host key is believed, and what people can do about it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use sshjob::adapter::dir::Dir;
use sshjob::adapter::ssh::Distrust;
use sshjob::domain::job::HostKeyPolicy;
use sshjob::domain::known_hosts::KnownHosts;
use sshjob::domain::run::Target;
use sshjob::domain::trust::Presented;
use sshjob::engine::pins::{Imported, Place, import};
use sshjob::engine::records::Runs;
use sshjob::engine::trust::{Basis, Trust, TrustError};
use sshjob::port::Store;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::memory::{Fault, Memory};

const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBNbx/Y+5M4PGCGLnNcbFsMGArL9+TySoluQdmacJcR61yomUixoCnfG6SkLxom8w/nu5TsxiLO80fvu1TQB2vlI=";

fn now() -> Timestamp {
    "2026-11-22T22:15:00Z".parse().unwrap()
}

fn trust<S: Store>(store: &S, policy: HostKeyPolicy, known_hosts: &str) -> Trust<S> {
    Trust::new(Runs::new(store.clone()), policy, Arc::new(KnownHosts::parse(known_hosts).unwrap()), [])
}

fn instance(id: &str, address: &str) -> Target {
    let (account, region) = ("123456789012".to_owned(), "us-east-1".to_owned());
    Target { account, region, ..named(id, address, 22) }
}

fn named(id: &str, address: &str, port: u16) -> Target {
    Target {
        instance: id.parse().unwrap(),
        account: "host".to_owned(),
        region: "host".to_owned(),
        name: None,
        address: Some(address.to_owned()),
        address_kind: None,
        port,
        user: "ec2-user".to_owned(),
        jump: None,
        keys: Vec::new(),
    }
}

async fn check<S: Store>(trust: &Trust<S>, target: &Target, key: &str) -> Result<(), String> {
    let checked = async {
        let presented = Presented::read(key, None)?;
        let evidence = trust.look(target).await?;
        trust.accept(target, evidence, &presented, now()).await
    };
    checked.await.map(|_| ()).map_err(|error: TrustError| match Distrust::from(error) {
        Distrust::Rejected(why) => format!("rejected: {why}"),
        Distrust::Unavailable(why) => format!("unavailable: {why}"),
    })
}

#[tokio::test]
async fn first_key_is_pinned_and_a_later_difference_rejected() {
    let store = Memory::default();
    let trust = trust(&store, HostKeyPolicy::Pinned, "");
    let web = instance("i-0abc", "10.0.0.5");
    assert_eq!(trust.bases(&[&web]).await.unwrap(), [Basis::FirstUse]);
    assert_eq!(check(&trust, &web, ED).await, Ok(()));
    let [(key, pin)] = store.objects().try_into().unwrap();
    insta::assert_snapshot!(format!("{key}\n{}", String::from_utf8(pin).unwrap()));
    // A comment is no part of a key.
    assert_eq!(check(&trust, &web, &format!("{ED} root@web")).await, Ok(()));
    assert_eq!(trust.bases(&[&web]).await.unwrap(), [Basis::Pinned]);
    insta::assert_snapshot!(check(&trust, &web, OTHER).await.unwrap_err());
    // Once and for all: the rejected key has not taken its place.
    assert_eq!(check(&trust, &web, ED).await, Ok(()));
    assert_eq!(store.writes().len(), 1);
}

#[tokio::test]
async fn of_many_hosts_only_the_pinned_ones_are_read() {
    let store = Memory::default();
    let many: Vec<Target> = (0..1500).map(|n| instance(&format!("i-{n}"), "10.0.0.5")).collect();
    for pinned in [&many[7], &many[1400]] {
        assert_eq!(check(&trust(&store, HostKeyPolicy::Pinned, ""), pinned, ED).await, Ok(()));
    }
    let looking = store.reboot();
    let trust = trust(&looking, HostKeyPolicy::Pinned, "");
    let bases = trust.bases(&many.iter().collect::<Vec<_>>()).await.unwrap();
    let pinned = (0..).zip(&bases).filter(|(_, basis)| **basis == Basis::Pinned).map(|(n, _)| n);
    assert_eq!(pinned.collect::<Vec<_>>(), [7, 1400]);
    assert_eq!((bases.len(), looking.calls()), (1500, 3), "a list and two pins");
}

#[tokio::test]
async fn address_that_is_recycled_inherits_no_pin() {
    let store = Memory::default();
    let trust = trust(&store, HostKeyPolicy::Pinned, "");
    assert_eq!(check(&trust, &instance("i-old", "10.0.0.5"), ED).await, Ok(()));
    assert_eq!(check(&trust, &instance("i-new", "10.0.0.5"), OTHER).await, Ok(()));
    // And an instance that moves keeps its own.
    assert!(check(&trust, &instance("i-old", "10.0.0.6"), OTHER).await.is_err());
}

#[tokio::test]
async fn host_without_inventory_is_its_address_and_port() {
    let store = Memory::default();
    let trust = trust(&store, HostKeyPolicy::Pinned, "");
    assert_eq!(check(&trust, &named("web1", "web1", 22), ED).await, Ok(()));
    for same in [named("web1:22", "web1", 22), named("WEB1", "WEB1", 22)] {
        assert!(check(&trust, &same, OTHER).await.is_err(), "{same:?}");
    }
    // With `-p` the port is not in the name.
    for other in [named("web1", "web1", 2222), named("::1", "::1", 2222), named("web2", "web2", 22)] {
        assert_eq!(check(&trust, &other, OTHER).await, Ok(()), "{other:?}");
    }
    let keys: Vec<String> = store.objects().into_iter().map(|(key, _)| key).collect();
    let expected = ["trust/host/host/::1+2222.json", "trust/host/host/web1.json", "trust/host/host/web1:2222.json"];
    assert_eq!(keys[..3], expected);
}

#[tokio::test]
async fn race_for_the_first_use_has_one_winner() {
    let folder = tempfile::tempdir().unwrap();
    let store = Dir::open(folder.path()).unwrap();
    let mut racers = JoinSet::new();
    for n in 0..20 {
        let (trust, key) = (trust(&store, HostKeyPolicy::Pinned, ""), if n % 2 == 0 { ED } else { OTHER });
        racers.spawn(async move { (key, check(&trust, &instance("i-0abc", "10.0.0.5"), key).await.is_ok()) });
    }
    let ends = racers.join_all().await;
    let winner = ends.iter().find(|(_, trusted)| *trusted).unwrap().0;
    assert!(ends.iter().all(|(key, trusted)| *trusted == (*key == winner)), "{ends:?}");
}

#[tokio::test]
async fn store_that_fails_trusts_nobody() {
    let web = instance("i-0abc", "10.0.0.5");
    for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
        let store = Memory::default().with_fault(1, fault);
        let said = check(&trust(&store, HostKeyPolicy::Pinned, ""), &web, ED).await.unwrap_err();
        assert!(said.starts_with("unavailable: whether the host key is trusted cannot be found out: "), "{said}");
    }
}

#[tokio::test]
async fn pin_that_is_damaged_is_no_first_use() {
    let web = instance("i-0abc", "10.0.0.5");
    let key = sshjob::engine::trust::pin_key(&web);
    let pin = |keys: &str| format!(r#"{{"keys":[{keys}],"address":"a","first_seen":"{}","origin":"imported"}}"#, now());
    for damage in [String::new(), "{}".to_owned(), pin(""), pin(r#""ssh-ed25519 AAAA""#)] {
        let store = Memory::default();
        store.create(&key, damage.clone().into_bytes()).await.unwrap();
        for policy in [HostKeyPolicy::Pinned, HostKeyPolicy::Strict] {
            let said = check(&trust(&store, policy, ""), &web, ED).await.unwrap_err();
            assert!(said.starts_with("unavailable: ") && said.contains(key.as_str()), "{damage}: {said}");
        }
    }
}

#[tokio::test]
async fn strict_believes_only_what_someone_vouched_for() {
    let store = Memory::default();
    let web = instance("i-0abc", "10.0.0.5");
    let strict = |known_hosts: &str| trust(&store, HostKeyPolicy::Strict, known_hosts);
    let mut said = vec![check(&strict(""), &web, ED).await.unwrap_err()];
    assert_eq!(check(&strict(&format!("10.0.0.5 {ED}")), &web, ED).await, Ok(()));
    said.push(check(&strict(&format!("10.0.0.5 {ED}")), &web, OTHER).await.unwrap_err());
    said.push(check(&strict(&format!("10.0.0.5 {ED}\n@revoked * {ED}")), &web, ED).await.unwrap_err());
    // What was merely first is not vouched for.
    assert_eq!(check(&trust(&store, HostKeyPolicy::Pinned, ""), &web, ED).await, Ok(()));
    said.push(check(&strict(""), &web, ED).await.unwrap_err());
    let place = Place::new(&web.account, &web.region, web.instance.clone());
    let runs = Runs::new(store.clone());
    let keys = [OTHER.parse().unwrap()];
    let replaced = import(&runs, &place, "10.0.0.5", &keys, now()).await.unwrap();
    assert_eq!(replaced, Imported::Replaced(vec![ED.parse().unwrap()]));
    assert_eq!(check(&strict(""), &web, OTHER).await, Ok(()));
    said.push(check(&strict(""), &web, ED).await.unwrap_err());
    said.push(check(&trust(&store, HostKeyPolicy::Pinned, ""), &web, ED).await.unwrap_err());
    // A host has keys of several types; of which one is known does not vouch for the others.
    said.push(check(&strict(&format!("10.0.0.5 {ECDSA}")), &instance("i-0def", "10.0.0.5"), ED).await.unwrap_err());
    // Nothing is ever pinned by `strict`.
    assert_eq!(store.writes().len(), 2);
    insta::assert_snapshot!(said.join("\n"));
}

#[tokio::test]
async fn off_trusts_anyone_and_pins_nothing() {
    let store = Memory::default();
    let web = instance("i-0abc", "10.0.0.5");
    assert_eq!(check(&trust(&store, HostKeyPolicy::Pinned, ""), &web, ED).await, Ok(()));
    assert_eq!(check(&trust(&store, HostKeyPolicy::Off, ""), &web, OTHER).await, Ok(()));
    assert_eq!(store.writes().len(), 1);
}

#[tokio::test]
async fn imports_add_up() {
    let store = Memory::default();
    let runs = Runs::new(store);
    let place = Place::new("local", "local", "web-1".parse().unwrap());
    let (first, second) = (ED.parse().unwrap(), OTHER.parse().unwrap());
    let import = async |keys: &[_]| import(&runs, &place, "a", keys, now()).await.unwrap();
    assert_eq!(import(std::slice::from_ref(&first)).await, Imported::New);
    assert_eq!(import(std::slice::from_ref(&first)).await, Imported::Unchanged);
    assert_eq!(import(&[first, second]).await, Imported::Added(1));
}

/// A store, and the command line on it.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// What `sshjob trust …` says: exit code, standard output, standard error.
    fn trust(&self, line: &str, input: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sshjob"));
        command.arg("trust").args(line.split(' ')).current_dir(&self.0).env_clear();
        command.args(["--store", "store"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        without_times(&format!("$ trust {line}\n{}{}exit {code}\n", text(output.stdout), text(output.stderr)))
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }
}

/// The command line reads the clock: instants are left out.
fn without_times(text: &str) -> String {
    let is_instant = |at: &str| at.starts_with("20") && at.as_bytes().get(10) == Some(&b'T');
    let Some(start) = (0..text.len()).find(|start| text.get(*start..).is_some_and(is_instant)) else {
        return text.to_owned();
    };
    let end = start + text[start..].find('Z').unwrap() + 1;
    format!("{}TIME{}", &text[..start], without_times(&text[end..]))
}

#[test]
fn command_imports_lists_and_forgets() {
    let desk = Desk::new();
    let scan =
        format!("# web1:22 SSH-2.0-OpenSSH_9.2p1\nweb1,10.0.0.5 {ED}\n[web1]:2222 {OTHER}\n*.example.org {ED}\n");
    desk.write("hosts", &scan);
    desk.write("one", &format!("10.0.0.9 {ED}\n10.0.0.9 {OTHER}\n"));
    let said = [
        desk.trust("list", ""),
        desk.trust("import hosts", ""),
        desk.trust("import - --instance i-0abc --account 1234 --region us-east-1", &format!("10.0.0.8 {OTHER}\n")),
        desk.trust("import one --instance web1", ""),
        desk.trust("list", ""),
        desk.trust("forget web1", ""),
        desk.trust("forget web1 --account host", ""),
        desk.trust("forget web1:2222 10.0.0.5", ""),
        desk.trust("forget web2 i-0abc", ""),
        desk.trust("list -o json", ""),
        desk.trust("forget --all", ""),
        desk.trust("list -q", ""),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn command_refuses_what_it_cannot_read() {
    let desk = Desk::new();
    desk.write("page", "<html><body>404</body></html>\n");
    desk.write("two", &format!("web1 {ED}\nweb2 {OTHER}\n"));
    desk.write("hashed", &format!("|1|AAAAAAAAAAAAAAAAAAAAAAAAAAA=|AAAAAAAAAAAAAAAAAAAAAAAAAAA= {ED}\n"));
    let said = [
        desk.trust("import page", ""),
        desk.trust("import none", ""),
        desk.trust("import two --instance i-0abc", ""),
        desk.trust("import hashed", ""),
        desk.trust("import -", ""),
        desk.trust("list", ""),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn command_says_where_lines_with_a_marker_belong() {
    let desk = Desk::new();
    desk.write("hosts", &format!("@cert-authority *.x {ED}\n@revoked web1 {OTHER}\nweb1 {ED}\nweb1 {ECDSA}\n"));
    desk.write("ca", &format!("@cert-authority *.x {ED}\n"));
    let said = [desk.trust("import hosts", ""), desk.trust("import ca", ""), desk.trust("list", "")];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn command_lists_around_a_damaged_pin() {
    let desk = Desk::new();
    desk.write("hosts", &format!("web1 {ED}\n"));
    desk.trust("import hosts", "");
    let folder = desk.0.path().join("store/trust/host/host");
    assert!(Path::new(&folder).join("web1.json").exists());
    desk.write("store/trust/host/host/bad.json", "{}");
    let said = [desk.trust("list", ""), desk.trust("forget bad", ""), desk.trust("list", "")];
    insta::assert_snapshot!(said.join("\n"));
}

/// `ssh-keygen` is the judge of how names are hashed.
#[test]
fn hashed_names_match_what_ssh_keygen_hashed() {
    const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    std::fs::write(&file, format!("web1 {ED}\n[web1]:2222 {OTHER}\n")).unwrap();
    let hashed = std::process::Command::new("ssh-keygen").arg("-Hf").arg(&file).output().unwrap();
    assert!(hashed.status.success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("web1"), "{text}");
    let known = sshjob::domain::known_hosts::KnownHosts::parse(&text).unwrap();
    let keys = |host: &str, port: u16| -> Vec<String> {
        known.of(host, port).keys.iter().map(|key| key.as_str().to_owned()).collect()
    };
    assert_eq!((keys("web1", 22), keys("WEB1", 2222)), (vec![ED.to_owned()], vec![OTHER.to_owned()]));
    assert!(keys("web2", 22).is_empty());
}
