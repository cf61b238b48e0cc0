//! Host certificates: whom an authority vouches for, until when, and what of it is not believed.

use jiff::Timestamp;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::Certificate;
use sshjob::adapter::dir::Dir;
use sshjob::domain::authority::Authority as Named;
use sshjob::domain::job::{HostKeyPolicy, Job};
use sshjob::domain::known_hosts::KnownHosts;
use sshjob::domain::run::Target;
use sshjob::domain::task::TaskState;
use sshjob::domain::trust::{Basis, Presented, Rejection, Trusted};
use sshjob::engine::records::Runs;
use sshjob::engine::trust::{Trust, TrustError};
use sshjob::port::Store as _;

use crate::support::ca::{Authority, fixed};
use crate::support::key::{self, Login};
use crate::support::loopback;
use crate::support::memory::Memory;
use crate::support::rig;
use crate::support::sshd::{Spec, Sshd};
use crate::support::world::{World, said};

/// A year of validity, around [`now`].
const YEAR: [&str; 2] = ["-V", "20260101000000:20270101000000"];

fn now() -> Timestamp {
    "2026-11-22T22:15:00Z".parse().unwrap()
}

fn web() -> Target {
    Target {
        instance: "i-0abc".parse().unwrap(),
        account: "123456789012".to_owned(),
        region: "us-east-1".to_owned(),
        name: Some("web".to_owned()),
        address: Some("10.0.0.5".to_owned()),
        port: 22,
        ..rig::target("127.0.0.1:22".parse().unwrap())
    }
}

/// Trust by certificates of these authorities, or of those in `known_hosts`.
fn trust(policy: HostKeyPolicy, known_hosts: &str, authorities: &[&Authority]) -> Trust<Memory> {
    let known_hosts = KnownHosts::parse(known_hosts).unwrap().into();
    let keys: Vec<_> = authorities.iter().map(|authority| authority.public().parse().unwrap()).collect();
    Trust::new(Runs::new(Memory::default()), policy, known_hosts, keys)
}

async fn judge(
    trust: &Trust<Memory>,
    target: &Target,
    key: &PrivateKey,
    certificate: Option<&str>,
) -> Result<Trusted, String> {
    let told = |rejection: Rejection| {
        let hint = rejection.hint().map(|hint| format!("\n  {hint}")).unwrap_or_default();
        format!("{rejection}{hint}")
    };
    let presented = Presented::read(&key.public_key().to_openssh().unwrap(), certificate).map_err(told)?;
    let evidence = trust.look(target).await.unwrap();
    match trust.accept(target, evidence, &presented, now()).await {
        Ok((trusted, _)) => Ok(trusted),
        Err(TrustError::Rejected(rejection)) => Err(told(rejection)),
        Err(TrustError::Store(error)) => panic!("{error}"),
    }
}

fn sound(name: &str) -> Vec<&str> {
    [&["-h", "-n", name], &YEAR[..]].concat()
}

#[tokio::test]
async fn certificate_of_the_authority_is_trusted_by_address_or_instance_but_never_by_a_tag() {
    let (ours, host) = (Authority::new(&fixed(1)), fixed(2));
    let ca = trust(HostKeyPolicy::Ca, "", &[&ours]);
    assert_eq!(ca.bases(&[&web()]).await.unwrap(), [Basis::Certified]);
    for name in ["10.0.0.5", "i-0abc", "I-0ABC", "other,10.0.0.5"] {
        let certificate = ours.certify(&host, &sound(name));
        assert_eq!(judge(&ca, &web(), &host, Some(&certificate)).await, Ok(Trusted::Certified), "{name}");
    }
    for name in ["web", "10.0.0.*", "*", "10.0.0.55"] {
        let certificate = ours.certify(&host, &sound(name));
        let said = judge(&ca, &web(), &host, Some(&certificate)).await.unwrap_err();
        assert!(said.contains(&format!("is for `{name}`, not for `10.0.0.5`, `i-0abc`")), "{said}");
    }
    // Of a host of `-w` the port is no part of the name, and nothing was pinned for anybody.
    let named = Target { instance: "web1:2222".parse().unwrap(), account: "host".to_owned(), ..web() };
    let named = Target { address: Some("web1".to_owned()), port: 2222, ..named };
    let certificate = ours.certify(&host, &sound("WEB1"));
    assert_eq!(judge(&ca, &named, &host, Some(&certificate)).await, Ok(Trusted::Certified));
}

#[tokio::test]
async fn every_rejection_says_what_was_presented_and_what_to_do() {
    let (ours, host, theirs) = (Authority::new(&fixed(1)), fixed(2), Authority::new(&fixed(3)));
    let ca = trust(HostKeyPolicy::Ca, "", &[&ours]);
    let with = |words: &[&str]| ours.certify(&host, words);
    let good = with(&sound("10.0.0.5"));
    let mut table = Vec::new();
    let mut row = |case: &str, said: Result<Trusted, String>| {
        table.push(format!("{case}\n  {}", said.unwrap_err()));
    };
    row("plain key", judge(&ca, &web(), &host, None).await);
    let other = theirs.certify(&host, &sound("10.0.0.5"));
    row("another authority", judge(&ca, &web(), &host, Some(&other)).await);
    for (case, words) in [
        ("user's certificate", [&["-n", "10.0.0.5"], &YEAR[..]].concat()),
        ("expired", vec!["-h", "-n", "10.0.0.5", "-V", "20250101000000:20260101000000"]),
        ("not yet valid", vec!["-h", "-n", "10.0.0.5", "-V", "20270101000000:20280101000000"]),
        ("no names", [&["-h"], &YEAR[..]].concat()),
        ("other names", sound("a,b,c,d,e,f,g")),
    ] {
        row(case, judge(&ca, &web(), &host, Some(&with(&words))).await);
    }
    let mut options = Certificate::from_openssh(&good).unwrap();
    options = certify_with(&options, |builder| builder.critical_option("verify-required", "").map(drop).unwrap());
    row("critical option", judge(&ca, &web(), &host, Some(&options.to_openssh().unwrap())).await);
    row(
        "forged signature",
        judge(&ca, &web(), &host, Some(&changed(&good, |bytes| *bytes.last_mut().unwrap() ^= 1))).await,
    );
    row("certified authority", judge(&ca, &web(), &host, Some(&nested(&good))).await);
    let weak = Authority::rsa(1024);
    let certificate = weak.certify(&host, &sound("10.0.0.5"));
    row("weak authority", judge(&trust(HostKeyPolicy::Ca, "", &[&weak]), &web(), &host, Some(&certificate)).await);
    let rsa = Authority::rsa(2048);
    let certificate = rsa.certify(&host, &[&["-t", "ssh-rsa"], &sound("10.0.0.5")[..]].concat());
    row("SHA-1", judge(&trust(HostKeyPolicy::Ca, "", &[&rsa]), &web(), &host, Some(&certificate)).await);
    let host_key = host.public_key().to_openssh().unwrap();
    let revoked = format!("@revoked * {host_key}\n");
    row("revoked key", judge(&trust(HostKeyPolicy::Ca, &revoked, &[&ours]), &web(), &host, Some(&good)).await);
    let revoked = format!("@revoked 10.* {}\n", ours.public());
    row("revoked authority", judge(&trust(HostKeyPolicy::Ca, &revoked, &[&ours]), &web(), &host, Some(&good)).await);
    row("no authority", judge(&trust(HostKeyPolicy::Ca, "", &[]), &web(), &host, Some(&good)).await);
    let revoked = format!("@revoked * {host_key}\n");
    row("revoked, pinned", judge(&trust(HostKeyPolicy::Pinned, &revoked, &[]), &web(), &host, None).await);
    row("unknown, strict", judge(&trust(HostKeyPolicy::Strict, "", &[]), &web(), &host, Some(&good)).await);
    insta::assert_snapshot!(table.join("\n"));
}

/// The certificate `of`, signed anew with the same authority's key after `change`.
fn certify_with(of: &Certificate, change: impl FnOnce(&mut russh::keys::ssh_key::certificate::Builder)) -> Certificate {
    use russh::keys::ssh_key::certificate::{Builder, CertType};
    let mut builder =
        Builder::new(of.nonce().to_vec(), of.public_key().clone(), of.valid_after(), of.valid_before()).unwrap();
    builder.cert_type(CertType::Host).unwrap().valid_principal("10.0.0.5").unwrap();
    change(&mut builder);
    builder.sign(&fixed(1)).unwrap()
}

fn changed(certificate: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = Certificate::from_openssh(certificate).unwrap().to_bytes().unwrap();
    change(&mut bytes);
    Certificate::from_bytes(&bytes).unwrap().to_openssh().unwrap()
}

/// The certificate with itself in the place of its authority's key.
fn nested(certificate: &str) -> String {
    let bytes = Certificate::from_openssh(certificate).unwrap().to_bytes().unwrap();
    // An Ed25519 authority and its signature take 51 and 83 bytes, and four each that tell so.
    let (body, end) = bytes.split_at(bytes.len() - (4 + 51 + 4 + 83));
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let nested = [body, &length, &bytes, &end[4 + 51..]].concat();
    format!("ssh-ed25519-cert-v01@openssh.com {}", base64(&nested))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0_usize, |n, byte| n << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            text.push(if place <= chunk.len() { char::from(DIGITS[n >> (18 - 6 * place) & 63]) } else { '=' });
        }
    }
    text
}

/// A host that presents `certificate` with its key; `lines` are more of its configuration.
fn host(login: &Login, key: &PrivateKey, certificate: impl FnOnce(&str) -> String) -> (Sshd, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host-cert.pub");
    let address = loopback::free(1)[0];
    std::fs::write(&file, certificate(&address.ip().to_string())).unwrap();
    let lines = vec![format!("HostCertificate {}", file.display())];
    let spec = Spec { addresses: vec![address], host_key: key.clone(), lines, ..Spec::accepting(login.public()) };
    (Sshd::start(spec), folder)
}

fn certified(authorities: &[&Authority]) -> Job {
    let mut job = rig::script("echo hello");
    job.login.host_key = HostKeyPolicy::Ca;
    let key = |authority: &&Authority| Named::Key(authority.public().parse().unwrap());
    job.login.host_ca = authorities.iter().map(key).collect();
    job
}

fn from_now(name: &str) -> [&str; 5] {
    ["-h", "-n", name, "-V", "-1d:+1d"]
}

#[tokio::test(flavor = "multi_thread")]
async fn real_host_with_a_certificate_is_reached_and_nothing_is_pinned() {
    let (login, folder) = (Login::fresh(), tempfile::tempdir().unwrap());
    let store = Dir::open(folder.path().join("store")).unwrap();
    let authority = Authority::new(&fixed(1));
    let rsa = Authority::rsa(2048);
    for (n, (authority, key)) in
        [(&authority, key::fresh()), (&rsa, key::fresh()), (&authority, rsa_key())].iter().enumerate()
    {
        let (host, _files) = host(&login, key, |ip| authority.certify(key, &from_now(ip)));
        let request = rig::request(certified(&[authority]), host.addresses(), &n.to_string());
        let done = rig::run(&store, request, &login).await.unwrap();
        assert_eq!(done.state(host.address()), (TaskState::Succeeded, String::new()));
    }
    assert_eq!(store.list("trust/", None, 10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_host_that_is_not_vouched_for_is_rejected() {
    let (login, folder) = (Login::fresh(), tempfile::tempdir().unwrap());
    let store = Dir::open(folder.path().join("store")).unwrap();
    let (ours, theirs, key) = (Authority::new(&fixed(1)), Authority::new(&fixed(3)), key::fresh());
    let plain = Sshd::start(Spec::accepting(login.public()));
    let (stranger, _a) = host(&login, &key, |ip| theirs.certify(&key, &from_now(ip)));
    let (expired, _b) = host(&login, &key, |ip| ours.certify(&key, &["-h", "-n", ip, "-V", "-2d:-1d"]));
    let (other, _c) = host(&login, &key, |_| ours.certify(&key, &from_now("elsewhere")));
    let expected = [
        (&plain, "no certificate comes with it"),
        (&stranger, "which is not an authority for this host"),
        (&expired, "its certificate was valid until"),
        (&other, "its certificate is for `elsewhere`, not for `127."),
    ];
    let hosts: Vec<_> = expected.iter().map(|(host, _)| host.address()).collect();
    let done = rig::run(&store, rig::request(certified(&[&ours]), &hosts, "one"), &login).await.unwrap();
    for (host, why) in expected {
        let (state, reason) = done.state(host.address());
        assert_eq!(state, TaskState::HostKeyRejected, "{why}: {reason}");
        assert!(reason.contains(why), "{why}: {reason}");
        assert!(!host.log().contains("Accepted"), "{}", host.log());
    }
}

fn rsa_key() -> PrivateKey {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let made = std::process::Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-N", "", "-f"]).arg(&file).status();
    assert!(made.unwrap().success());
    PrivateKey::read_openssh_file(&file).unwrap()
}

#[tokio::test]
async fn strict_believes_authorities_of_known_hosts_for_the_hosts_that_their_lines_name() {
    let (ours, host) = (Authority::new(&fixed(1)), fixed(2));
    let certificate = ours.certify(&host, &sound("10.0.0.5"));
    let line = |names: &str| format!("@cert-authority {names} {}\n", ours.public());
    let strict = |file: &str| trust(HostKeyPolicy::Strict, file, &[]);
    for names in ["10.0.0.5", "10.0.*", "*,!10.0.0.6", HASHED] {
        let strict = strict(&line(names));
        assert_eq!(strict.bases(&[&web()]).await.unwrap(), [Basis::Certified], "{names}");
        assert_eq!(judge(&strict, &web(), &host, Some(&certificate)).await, Ok(Trusted::Certified), "{names}");
    }
    for names in ["10.0.0.6", "*,!10.0.0.5", "[10.0.0.5]:2222"] {
        let said = judge(&strict(&line(names)), &web(), &host, Some(&certificate)).await.unwrap_err();
        assert!(said.contains("neither known_hosts nor an imported pin"), "{said}");
    }
    // The same lines name the authorities of `ca`, and a plain key that is known needs no certificate.
    let ca = trust(HostKeyPolicy::Ca, &line("10.*"), &[]);
    assert_eq!(judge(&ca, &web(), &host, Some(&certificate)).await, Ok(Trusted::Certified));
    let expired = ours.certify(&host, &["-h", "-n", "10.0.0.5", "-V", "20250101000000:20260101000000"]);
    let both = format!("{}10.0.0.5 {}\n", line("*"), host.public_key().to_openssh().unwrap());
    assert_eq!(judge(&strict(&both), &web(), &host, Some(&expired)).await, Ok(Trusted::Known));
    let said = judge(&strict(&line("*")), &web(), &host, Some(&expired)).await.unwrap_err();
    assert!(said.contains("its certificate was valid until"), "{said}");
    // Who believes plain keys of the first use asks for no certificates, and learns of no authority.
    let pinned = trust(HostKeyPolicy::Pinned, &line("*"), &[&ours]);
    assert!(!pinned.look(&web()).await.unwrap().wants_certificate());
}

/// `10.0.0.5`, hashed as `ssh-keygen -H` does.
const HASHED: &str = "|1|MDEyMzQ1Njc4OWFiY2RlZmdoaWo=|tqOTpNs0t5h9UUelNIhycuqnx9A=";

#[test]
fn command_line_believes_a_file_and_freezes_its_keys_into_the_run() {
    let world = World::new(0);
    let (authority, key) = (Authority::new(&fixed(1)), key::fresh());
    let (host, _files) = host(world.fleet().login(), &key, |ip| authority.certify(&key, &from_now(ip)));
    world.add("certified", host.address(), "Role: web");
    let words = |more: &[&'static str]| [&["run", "-q", "--host-key", "ca", "-t", "Role=web"], more].concat();
    let told = |words: &[&str]| {
        let output = world.sshjob(words);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        format!("exit {}\n{}{}", output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let nobody = "exit 2\nerror: `host_key: ca` believes authorities, and none is named\nhint: name one: `--host-ca FILE`, \
                  `host_ca:` in sshjob.yaml, or a line `@cert-authority` of known_hosts\n";
    assert_eq!(told(&words(&["--", "true"])), nobody);
    let file = world.path().join("ca.pub");
    std::fs::write(&file, "@cert-authority * ssh-ed25519 AAAA\n").unwrap();
    let unread = told(&words(&["--host-ca", "ca.pub", "--", "true"]));
    assert!(unread.contains("line 1: `@cert-authority *` is not a public key: "), "{unread}");
    std::fs::copy(authority.public_file(), &file).unwrap();
    let unasked = "exit 2\nerror: `host_ca` names authorities, and `host_key` is not `ca`: nobody would ask them\n\
                   hint: set `host_key: ca`, or `--host-key ca`\n";
    assert_eq!(told(&["run", "-t", "Role=web", "--host-ca", "ca.pub", "--", "true"]), unasked);
    let project = world.path().join("sshjob.yaml");
    let yaml = std::fs::read_to_string(&project).unwrap() + "host_key: ca\nhost_ca: ca.pub\n";
    std::fs::write(&project, yaml).unwrap();
    let dry = told(&["run", "-t", "Role=web", "--dry-run", "--", "true"]);
    assert!(dry.contains("certificate of a known authority"), "{dry}");
    let config = told(&["config"]);
    assert!(config.contains("host_ca") && config.contains("ca.pub"), "{config}");
    assert_eq!(told(&words(&["--", "echo hello"])), "exit 0\ncertified | hello\n");
    // What is run again believes what the first run did, wherever the file has gone.
    std::fs::remove_file(&file).unwrap();
    let again = told(&["retry", "last"]);
    assert!(again.starts_with("exit 0\n"), "{again}");
    let by_text = world.command(&words(&["--", "true"])).env("SSHJOB_HOST_CA", authority.public()).output().unwrap();
    assert_eq!(by_text.status.code(), Some(0), "{}", said(&by_text));
}

#[test]
fn known_hosts_of_the_machine_names_authorities_and_revoked_keys() {
    let world = World::new(0);
    let (authority, key) = (Authority::new(&fixed(1)), key::fresh());
    let (host, _files) = host(world.fleet().login(), &key, |ip| authority.certify(&key, &from_now(ip)));
    world.add("certified", host.address(), "Role: web");
    std::fs::create_dir(world.path().join(".ssh")).unwrap();
    let known_hosts = |text: &str| std::fs::write(world.path().join(".ssh/known_hosts"), text).unwrap();
    let ends = |policy: &str, code: i32| {
        let output = world.sshjob(&["run", "--host-key", policy, "-t", "Role=web", "--", "true"]);
        assert_eq!(output.status.code(), Some(code), "{policy}: {}", said(&output));
        said(&output)
    };
    let line = format!("@cert-authority [{}]:* {}\n", host.address().ip(), authority.public());
    known_hosts(&line);
    ends("strict", 0);
    ends("ca", 0);
    known_hosts(&format!("{line}{line}@revoked * {}\n", authority.public()));
    let revoked = ends("ca", 3);
    assert!(revoked.contains("which known_hosts marks as revoked"), "{revoked}");
    // A plain line says nothing to who does not believe plain lines; what is revoked holds for everyone but `off`.
    known_hosts("mangled\n");
    ends("pinned", 0);
    ends("strict", 2);
    known_hosts(&format!("@revoked * {}\n", key.public_key().to_openssh().unwrap()));
    let revoked = ends("pinned", 3);
    assert!(revoked.contains("which known_hosts marks as revoked"), "{revoked}");
    ends("off", 0);
    known_hosts("@revoked mangled\n");
    let unread = ends("pinned", 2);
    assert!(unread.contains("known_hosts`: line 1: there is no key type"), "{unread}");
}
