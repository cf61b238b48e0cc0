//! Hosts with one algorithm each: what we accept connects, and of the rest both sides are named.
//!
//! Which algorithms there are to try is asked of the installed OpenSSH; which of them must work is said here.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use sshjob::adapter::dir::Dir;
use sshjob::domain::task::TaskState;

use crate::support::client::ssh;
use crate::support::key::Login;
use crate::support::loopback;
use crate::support::rig::{self, Done};
use crate::support::sshd::{Spec, Sshd};
use crate::support::world::{World, json, said};

const KEY_EXCHANGES: [&str; 6] = [
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group15-sha512",
];

const CIPHERS: [&str; 6] = [
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
];

const MACS: [&str; 2] = ["hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com"];

const HOST_KEYS: [&str; 3] = ["ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"];

/// What the installed OpenSSH can do: `ssh -Q QUERY`.
fn known_to_openssh(query: &str) -> Vec<String> {
    let output = Command::new("ssh").args(["-Q", query]).output().expect("`ssh` is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Makes a key as `ssh-keygen` does, and tells where it is.
fn generate(folder: &Path, kind: &str, bits: &str) -> String {
    let path = folder.join(format!("{kind}-{bits}")).display().to_string();
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", "", "-C", "", "-f", &path]);
    if !bits.is_empty() {
        command.args(["-b", bits]);
    }
    assert!(command.status().expect("`ssh-keygen` is installed").success(), "{command:?}");
    path
}

/// A host that lets `login` in and has these lines in its configuration.
fn host(login: &Login, lines: &[String]) -> Sshd {
    let spec = Spec::accepting(login.public());
    Sshd::start(Spec { lines: lines.to_vec(), ..spec })
}

async fn run(hosts: &[Sshd], login: &Login) -> Done {
    let folder = tempfile::tempdir().unwrap();
    let store = Dir::open(folder.path().join("store")).unwrap();
    let addresses: Vec<SocketAddr> = hosts.iter().map(Sshd::address).collect();
    rig::run(&store, rig::request(rig::script("echo hello"), &addresses, "one"), login).await.unwrap()
}

/// Runs a script on a host for each of `algorithms`, which `limited` makes the only one of its `kind` there, and compares
/// the table of what came of it.
async fn assert_accepted(kind: &str, accepted: &[&str], algorithms: &[String], limited: impl Fn(&str) -> Vec<String>) {
    let login = Login::fresh();
    let hosts: Vec<Sshd> = algorithms.iter().map(|name| host(&login, &limited(name))).collect();
    let done = run(&hosts, &login).await;
    let row = |name: &str, (state, reason): (TaskState, String)| format!("| `{name}` | {state} | {reason} |\n");
    let expected = |name: &str| {
        if accepted.contains(&name) {
            return (TaskState::Succeeded, String::new());
        }
        let accepted = accepted.join(", ");
        let why = format!("SSH handshake: no common {kind}: the host offers {name}; accepted are {accepted}");
        (TaskState::Unreachable, why)
    };
    let found: String = algorithms.iter().zip(&hosts).map(|(name, at)| row(name, done.state(at.address()))).collect();
    let wanted: String = algorithms.iter().map(|name| row(name, expected(name))).collect();
    assert_eq!(found, wanted);
    eprintln!("| {kind} | state | reason |\n|---|---|---|\n{found}");
    assert!(found.contains("| succeeded |") && found.contains("| unreachable |"), "both kinds were tried:\n{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_one_key_exchange_each_connect_or_tell_both_sides() {
    let limited = |name: &str| vec![format!("KexAlgorithms {name}")];
    assert_accepted("key exchange", &KEY_EXCHANGES, &known_to_openssh("kex"), limited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_one_cipher_each_connect_or_tell_both_sides() {
    let limited = |name: &str| vec![format!("Ciphers {name}")];
    assert_accepted("cipher", &CIPHERS, &known_to_openssh("cipher"), limited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_one_mac_each_connect_or_tell_both_sides() {
    // Other ciphers have a MAC of their own and need none.
    let limited = |name: &str| vec!["Ciphers aes256-ctr".to_owned(), format!("MACs {name}")];
    assert_accepted("MAC", &MACS, &known_to_openssh("mac"), limited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_one_type_of_host_key_each_connect_or_tell_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    // Keys on security tokens need one, and certificates are another subject.
    let is_plain = |name: &String| !name.contains("sk-") && !name.contains("-cert-");
    let algorithms: Vec<String> = known_to_openssh("HostKeyAlgorithms").into_iter().filter(is_plain).collect();
    let mut keys = Vec::new();
    for name in &algorithms {
        let (kind, bits) = match name.as_str() {
            "ssh-dss" => ("dsa", ""),
            name if name.contains("rsa") => ("rsa", "2048"),
            name => name.strip_prefix("ecdsa-sha2-nistp").map_or(("ed25519", ""), |bits| ("ecdsa", bits)),
        };
        let path = folder.path().join(format!("{kind}-{bits}")).display().to_string();
        let path = if Path::new(&path).exists() { path } else { generate(folder.path(), kind, bits) };
        keys.push((name.clone(), path));
    }
    let limited = |name: &str| {
        let (_, path) = keys.iter().find(|(key, _)| key == name).unwrap();
        vec![format!("HostKey {path}"), format!("HostKeyAlgorithms {name}")]
    };
    assert_accepted("host key type", &HOST_KEYS, &algorithms, limited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_with_a_short_rsa_key_is_rejected() {
    let (folder, login) = (tempfile::tempdir().unwrap(), Login::fresh());
    let short = generate(folder.path(), "rsa", "1024");
    // Since 9.1 OpenSSH has the option, and may have a longer minimum than this key is.
    let lines = [format!("HostKey {short}"), "HostKeyAlgorithms rsa-sha2-512".into(), "RequiredRSASize 1024".into()];
    let host = host(&login, &lines);
    let done = run(std::slice::from_ref(&host), &login).await;
    let why = "the host key is RSA with 1024 bits; at least 2048 are accepted".to_owned();
    assert_eq!(done.state(host.address()), (TaskState::HostKeyRejected, why));
}

#[test]
fn host_with_an_ecdsa_key_alone_connects_once_that_key_is_known() {
    let world = World::new(1);
    let path = generate(world.path(), "ecdsa", "256");
    let host =
        host(world.fleet().login(), &[format!("HostKey {path}"), "HostKeyAlgorithms ecdsa-sha2-nistp256".into()]);
    let (ip, port) = (host.address().ip(), host.address().port());
    let (address, key) = (format!("{ip}:{port}"), std::fs::read_to_string(format!("{path}.pub")).unwrap());
    let run = || {
        let output = world.sshjob(&["-o", "json", "run", "-w", &address, "--", "echo", "hello"]);
        let task = json(&output)["tasks"][0].clone();
        (task["state"].as_str().unwrap().to_owned(), task["reason"].clone(), said(&output))
    };
    let (state, reason, said) = run();
    let why = "SSH handshake: no common host key type: the host offers ecdsa-sha2-nistp256; accepted are ssh-ed25519, \
               rsa-sha2-512, rsa-sha2-256";
    assert_eq!((state.as_str(), reason), ("unreachable", why.into()), "{said}");
    std::fs::write(world.path().join("known_hosts"), format!("[{ip}]:{port} {key}")).unwrap();
    assert!(world.sshjob(&["trust", "import", "known_hosts"]).status.success());
    let (state, _, said) = run();
    assert_eq!(state, "succeeded", "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_keys_of_every_type_log_in_where_all_or_only_theirs_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [
        ("ed25519", "", vec!["ssh-ed25519"]),
        ("ecdsa", "256", vec!["ecdsa-sha2-nistp256"]),
        ("ecdsa", "384", vec!["ecdsa-sha2-nistp384"]),
        ("ecdsa", "521", vec!["ecdsa-sha2-nistp521"]),
        ("rsa", "2048", vec!["rsa-sha2-512", "rsa-sha2-256"]),
        ("rsa", "4096", vec!["rsa-sha2-512", "rsa-sha2-256"]),
    ];
    for (kind, bits, signatures) in kinds {
        let login = Login::at(&generate(folder.path(), kind, bits));
        let mut hosts = vec![host(&login, &[])];
        hosts.extend(signatures.iter().map(|name| host(&login, &[format!("PubkeyAcceptedAlgorithms {name}")])));
        let done = run(&hosts, &login).await;
        for host in &hosts {
            // Some OpenSSH hosts say that they take signatures that they do not take: its own client is refused as well.
            let output = ssh(host.address(), &login.path(), "true", b"");
            let expected = if output.status.success() { TaskState::Succeeded } else { TaskState::AuthFailed };
            assert_eq!(done.state(host.address()).0, expected, "{kind} {bits}:\n{}", host.log());
        }
        assert_eq!(done.state(hosts[0].address()).0, TaskState::Succeeded, "{kind} {bits}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_key_is_refused_by_a_host_that_takes_sha_1_signatures_alone() {
    let folder = tempfile::tempdir().unwrap();
    let login = Login::at(&generate(folder.path(), "rsa", "2048"));
    let host = host(&login, &["PubkeyAcceptedAlgorithms ssh-rsa".to_owned()]);
    let done = run(std::slice::from_ref(&host), &login).await;
    let (state, reason) = done.state(host.address());
    assert_eq!(state, TaskState::AuthFailed, "{reason}");
    assert!(!host.log().contains("Accepted publickey"), "{}", host.log());
}

/// What ssh-audit has against algorithms that nothing can be done about: versions before 2024 do not know these two, and
/// later ones want of every host what OpenSSH has since 9.9.
const GRUMBLES: [&str; 3] = [
    "mlkem768x25519-sha256: unknown algorithm",
    "kex-strict-c-v00@openssh.com: unknown algorithm",
    ": does not provide protection against post-quantum attacks",
];

/// What a report of ssh-audit fails or warns about, as `algorithm: why`. A second finding about an algorithm has a line
/// of its own.
fn findings(report: &str) -> Vec<String> {
    let (mut algorithm, mut found) = ("", Vec::new());
    for line in report.lines() {
        if line.starts_with('(') {
            algorithm = line.split_whitespace().nth(1).unwrap_or_default();
        }
        let why = ["[fail] ", "[warn] "].iter().find_map(|level| line.split_once(level));
        found.extend(why.map(|(_, why)| format!("{algorithm}: {}", why.trim())));
    }
    found
}

#[test]
fn audit_finds_nothing_to_fail_or_warn_about_in_what_is_offered() {
    let (world, address) = (World::new(0), loopback::free(1)[0]);
    let mut audit = Command::new("ssh-audit")
        .args(["--client-audit", "--no-colors", "--port", &address.port().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`ssh-audit` is installed");
    // It hangs up on who connects first, and that is us: until then nobody listens.
    let reason = || {
        let output = world.sshjob(&["-o", "json", "run", "-w", &address.to_string(), "--", "true"]);
        json(&output)["tasks"][0]["reason"].as_str().unwrap_or_default().to_owned()
    };
    while audit.try_wait().unwrap().is_none() && reason() == "connect: connection refused" {}
    let output = audit.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    eprintln!("{report}");
    let banner = concat!("(gen) banner: SSH-2.0-sshjob_", env!("CARGO_PKG_VERSION"), "\n");
    assert!(report.contains(banner), "{report}");
    let offered = |name: &&str| report.lines().any(|line| line.split_whitespace().nth(1) == Some(name));
    let all = [KEY_EXCHANGES.as_slice(), &CIPHERS, &MACS, &HOST_KEYS].concat();
    assert_eq!(all.iter().filter(|name| !offered(name)).collect::<Vec<_>>(), [&""; 0], "{report}");
    let is_new = |finding: &String| !GRUMBLES.iter().any(|known| finding.ends_with(known));
    assert_eq!(findings(&report).into_iter().filter(is_new).collect::<Vec<_>>(), [""; 0], "{report}");
}

#[test]
fn audit_report_is_read_whole() {
    let report = "(gen) banner: SSH-2.0-x\n\
                  (key) ssh-dss   -- [fail] using small key\n                 `- [warn] weak\n                 `- [info] old\n\
                  (mac) hmac-sha1 -- [warn] using encrypt-and-MAC mode\n";
    assert_eq!(
        findings(report),
        ["ssh-dss: using small key", "ssh-dss: weak", "hmac-sha1: using encrypt-and-MAC mode"]
    );
}
