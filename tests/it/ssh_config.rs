//! Settings of `~/.ssh/config`: read as ssh reads them, and obeyed for hosts that are named with `-w`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use sshjob::domain::ssh_config::{Asked, HostSettings, Proxy, SshConfig};

use crate::support::key::Login;
use crate::support::sshd::{self, Spec, Sshd};
use crate::support::world::{World, json, said};

/// What `ssh -G` makes of a file, in our words; `None` where it refuses the file.
fn oracle(file: &Path, asked: &Asked<'_>) -> Option<HostSettings> {
    let mut command = Command::new("ssh");
    command.arg("-G").arg("-F").arg(file);
    if let Some(user) = asked.user {
        command.args(["-l", user]);
    }
    let output = command.arg("--").arg(asked.host).env_remove("SSH_AUTH_SOCK").output().unwrap();
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        told.entry(key).or_default().push(value);
    }
    let one = |key: &str| told.get(key).map(|values| values[0].to_owned());
    let jump = one("proxyjump").map(|list| Proxy::Jump(list.split(',').map(|hop| hop.parse().unwrap()).collect()));
    let command = one("proxycommand").map(|_| Proxy::Command);
    let files = told["identityfile"].iter().map(|file| (*file).to_owned());
    Some(HostSettings {
        host_name: one("hostname"),
        user: one("user"),
        port: one("port").map(|port| port.parse().unwrap()),
        // Its own default is no setting.
        identity_files: files.filter(|file| !file.starts_with("~/.ssh/id_")).collect(),
        proxy: jump.or(command),
    })
}

/// The same by us, with ssh's defaults.
fn ours(file: &Path, asked: &Asked<'_>) -> Option<HostSettings> {
    let mut include = |path: &str| Ok(vec![(path.to_owned(), std::fs::read_to_string(path).unwrap())]);
    let config = SshConfig::parse("config", &std::fs::read_to_string(file).unwrap(), &mut include).ok()?;
    let mut found = config.of(asked);
    found.host_name.get_or_insert_with(|| asked.host.to_owned());
    // A user who was named wins, which is for the caller to see to.
    found.user = Some(asked.user.map(str::to_owned).or(found.user).unwrap_or_else(|| asked.local_user.to_owned()));
    found.port.get_or_insert(22);
    found.proxy = found.proxy.filter(|proxy| !matches!(proxy, Proxy::NoJump | Proxy::NoCommand));
    Some(found)
}

/// Lines as people write them, and as nobody would.
fn line() -> impl Strategy<Value = String> {
    let pattern =
        || prop::sample::select(vec!["web", "web*", "!web", "*", "db?", "!db1", "web-1", "*1", "alias", "\"db1\""]);
    let patterns = prop::collection::vec(pattern(), 1..4).prop_map(|patterns| patterns.join(" "));
    let list =
        prop::collection::vec(prop::sample::select(vec!["web", "w*", "!web-1", "*", "db1", "deploy", "root"]), 1..3)
            .prop_map(|patterns| patterns.join(","));
    let criterion = (prop::sample::select(vec!["host", "originalhost", "user", "!host", "!user", "localuser"]), list)
        .prop_map(|(name, list)| format!("{name} {list}"));
    let section = prop_oneof![
        3 => patterns.prop_map(|patterns| format!("Host {patterns}")),
        2 => prop::collection::vec(criterion, 1..3).prop_map(|criteria| format!("Match {}", criteria.join(" "))),
        1 => Just("Match all".to_owned()),
        1 => Just("Match final host w*".to_owned()),
        1 => Just("Match canonical".to_owned()),
        1 => Just("Match".to_owned()),
    ];
    let setting = prop_oneof![
        prop::sample::select(vec![
            "HostName 10.0.0.5",
            "HostName %h.example.com",
            "hostname=\"w1.example.com\"",
            "HostName  db1  # comment",
            "HostName a%%h",
            "HostName a b",
        ]),
        prop::sample::select(vec!["User deploy", "USER = root", "  User\t'deploy'", "User", "User deploy # comment"]),
        prop::sample::select(vec!["Port 2222", "Port=22", "Port 0", "Port 70000", "Port 22 23", "Port \"2022\""]),
        prop::sample::select(vec![
            "IdentityFile /k/a",
            "IdentityFile \"/k/with space\"",
            "IdentityFile /k/a#b",
            "IdentityFile ~/k",
            "IdentityFile /k/%h",
            "IdentityFile \"/k/a",
            "IdentityFile /k/with\\ space",
            "IdentityFile '/k/\\'q'",
        ]),
        prop::sample::select(vec![
            "ProxyJump bastion",
            "ProxyJump a@b1:2222,c2",
            "ProxyJump none",
            "ProxyCommand none",
            "ProxyCommand nc %h %p",
            "ProxyJump [::1]:22",
            "ProxyJump ssh://u@b3:22",
        ]),
        prop::sample::select(vec!["", "# comment", "Compression yes", "ServerAliveInterval 5", "Include INNER"]),
    ];
    prop_oneof![2 => section, 5 => setting.prop_map(str::to_owned)]
}

/// How many files are put to the test; each takes ssh some milliseconds.
const CASES: u32 = 200;

#[test]
fn file_means_to_us_what_it_means_to_ssh() {
    let folder = tempfile::tempdir().unwrap();
    let [file, inner] = ["config", "inner"].map(|name| folder.path().join(name));
    let local_user = sshd::user();
    let lines = || prop::collection::vec(line(), 0..8);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) };
    let hosts = prop::sample::select(vec!["web", "web-1", "db1", "alias", "10.0.0.9"]);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome =
        runner.run(&(lines(), lines(), hosts, prop::option::of(Just("root"))), |(outer, within, host, user)| {
            let inner_text =
                within.iter().filter(|line| !line.starts_with("Include")).cloned().collect::<Vec<_>>().join("\n");
            std::fs::write(&inner, &inner_text).unwrap();
            let text = outer.join("\n").replace("INNER", inner.to_str().unwrap());
            std::fs::write(&file, &text).unwrap();
            let asked = Asked { host, user, local_user: &local_user };
            let (theirs, ours) = (oracle(&file, &asked), ours(&file, &asked));
            prop_assert_eq!(&ours, &theirs, "\n--- outer\n{}\n--- inner\n{}\n", text, inner_text);
            Ok(())
        });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// A world whose project says nothing, and whose user has this `~/.ssh/config`.
fn world(config: &str) -> World {
    let world = World::new(0);
    std::fs::write(world.path().join("sshjob.yaml"), "").unwrap();
    std::fs::create_dir_all(world.path().join(".ssh")).unwrap();
    configure(&world, config);
    world
}

fn configure(world: &World, config: &str) {
    let path = world.path().join(".ssh/config");
    std::fs::write(&path, config).unwrap();
    mode(&path, 0o600);
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What a dry run of `words` says of its only task: address, port, user, and the way there.
fn reached(world: &World, words: &[&str]) -> (String, u64, String, Vec<String>) {
    let output = world.sshjob(&[&["run", "--dry-run", "-o", "json"], words, &["--", "true"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let task = &json(&output)["tasks"][0];
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let via = task["via"].as_array().unwrap().iter().map(text).collect();
    (text(&task["address"]), task["port"].as_u64().unwrap(), text(&task["user"]), via)
}

fn expected(address: &str, port: u64, user: &str, via: &[&str]) -> (String, u64, String, Vec<String>) {
    (address.to_owned(), port, user.to_owned(), via.iter().map(|hop| (*hop).to_owned()).collect())
}

#[test]
fn named_host_is_reached_as_the_file_says_through_hops_with_keys_of_their_own() {
    let (target_login, bastion_login) = (Login::fresh(), Login::fresh());
    let target = Sshd::start(Spec::accepting(target_login.public()));
    let bastions = [(); 2].map(|()| Sshd::start(Spec::accepting(bastion_login.public())));
    let user = sshd::user();
    let host = |name: &str, sshd: &Sshd, key: &Login, more: &str| {
        let (ip, port, key) = (sshd.address().ip(), sshd.address().port(), key.path().display().to_string());
        format!("Host {name}\n  HostName {ip}\n  Port {port}\n  User {user}\n  IdentityFile {key}\n  {more}\n")
    };
    let world = world(
        &[
            host("web", &target, &target_login, "ProxyJump inner"),
            host("inner", &bastions[1], &bastion_login, "ProxyJump outer"),
            host("outer", &bastions[0], &bastion_login, ""),
        ]
        .concat(),
    );
    let [outer, inner] = [&bastions[0], &bastions[1]].map(|it| format!("{user}@{}", it.address()));
    let (ip, port) = (target.address().ip().to_string(), u64::from(target.address().port()));
    assert_eq!(reached(&world, &["-w", "web"]), expected(&ip, port, &user, &[&outer, &inner]));
    for words in
        [&["run", "-w", "web", "-o", "json", "--", "echo $SSHJOB_INSTANCE"][..], &["retry", "last", "-o", "json"]]
    {
        let output = world.sshjob(words);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let task = &json(&output)["tasks"][0];
        assert_eq!((task["instance"].as_str(), task["stdout"].as_str()), (Some("web"), Some("web\n")));
    }
    for sshd in bastions.iter().chain([&target]) {
        assert_eq!(sshd.log().matches("Accepted publickey").count(), 2, "{}", sshd.log());
        assert_eq!(sshd.log().matches("Failed publickey").count(), 0, "{}", sshd.log());
    }
    // Pinned by address and port, whatever it is called.
    let output = world.sshjob(&["trust", "list"]);
    assert!(said(&output).contains(&target.address().to_string()), "{}", said(&output));
    // Jump hosts of a flag are looked up as well.
    assert_eq!(reached(&world, &["-w", "other", "-J", "inner"]), expected("other", 22, "ec2-user", &[&outer, &inner]));
}

#[test]
fn what_is_said_elsewhere_comes_before_the_file() {
    let world =
        world("Host web\n HostName 10.0.0.5\n Port 2222\n User deploy\n ProxyJump b1\nHost none\n ProxyJump none\n");
    assert_eq!(reached(&world, &["-w", "web"]), expected("10.0.0.5", 2222, "deploy", &["b1"]));
    assert_eq!(reached(&world, &["-w", "root@web:22"]), expected("10.0.0.5", 22, "root", &["b1"]));
    let words = ["-w", "web", "-u", "me", "-p", "2200", "-J", "u@b2:23"];
    assert_eq!(reached(&world, &words), expected("10.0.0.5", 2200, "me", &["u@b2:23"]));
    std::fs::write(world.path().join("sshjob.yaml"), "user: projects\nport: 23\njump: b3\n").unwrap();
    assert_eq!(reached(&world, &["-w", "web"]), expected("10.0.0.5", 23, "projects", &["b3"]));
    std::fs::write(world.path().join("sshjob.yaml"), "").unwrap();
    let run = |config: &str| {
        let mut command = world.command(&["run", "--dry-run", "-w", "web", "--", "true"]);
        said(&command.env("SSHJOB_SSH_CONFIG", config).output().unwrap())
    };
    assert!(run("none").contains("ec2-user") && !run("none").contains("10.0.0.5"));
    std::fs::write(world.path().join("other"), "User another\n").unwrap();
    mode(&world.path().join("other"), 0o600);
    assert!(run("other").contains("another"));
    assert!(run("gone").contains("cannot read `gone`: No such file"), "{}", run("gone"));
}

#[test]
fn file_that_cannot_be_obeyed_is_an_error_of_a_named_host_and_of_no_other() {
    let world = world("");
    world.add("listed", "127.0.0.1:22".parse().unwrap(), "Role: web");
    std::fs::write(world.path().join("sshjob.yaml"), "inventory: { file: hosts.yaml }\n").unwrap();
    let fails = |host: &str| {
        let output = world.sshjob(&["run", "--dry-run", "-w", host, "--", "true"]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let fine = world.sshjob(&["run", "--dry-run", "-t", "Role=web", "--", "true"]);
        assert_eq!(fine.status.code(), Some(0), "{}", said(&fine));
        String::from_utf8(output.stderr).unwrap().replace(world.path().to_str().unwrap(), "HOME")
    };
    let mut told = String::new();
    for config in [
        "Host web\n  Port many\n",
        "User \"me\n",
        "Port 22 23\n",
        "HostName\n",
        "HostName %x.example.com\n",
        "User -oProxyCommand=x\n",
        "Match host\n",
        "Match moon full\n",
        "ProxyJump a b\n",
        "ProxyJump -x\n",
        "Include deep\n",
        "Include wrong\n",
        "Host web\nProxyCommand nc %h %p\n",
        "Host a\n ProxyJump b\nHost b\n ProxyJump a\nHost web\n ProxyJump a\n",
        "IdentityFile ~/%C\n",
    ] {
        configure(&world, config);
        for (name, text) in [("deep", "Include deep\n"), ("wrong", "# fine\nPort 0\n")] {
            let path = world.path().join(".ssh").join(name);
            std::fs::write(&path, text).unwrap();
            mode(&path, 0o600);
        }
        writeln!(told, "{config}{}", fails("web")).unwrap();
    }
    configure(&world, "User me\n");
    mode(&world.path().join(".ssh/config"), 0o666);
    write!(told, "{}", fails("web")).unwrap();
    insta::assert_snapshot!(told);
}

#[test]
fn files_that_are_included_are_found_by_name_and_wildcard() {
    let world = world("Include conf.d/*.conf gone.d/* ~/.ssh/last\nHost web\n Port 3\n");
    std::fs::create_dir(world.path().join(".ssh/conf.d")).unwrap();
    for (name, text) in [
        ("conf.d/2.conf", "Host web\n User second\n HostName two\n"),
        ("conf.d/1.conf", "Host web\n User first\nHost other\n Port 4\n"),
        ("conf.d/.hidden.conf", "Port 5\n"),
        ("conf.d/1.conf.bak", "Port 6\n"),
        ("last", "Match exec \"touch ran\"\n Port 7\nMatch all\n HostName last\n"),
    ] {
        std::fs::write(world.path().join(".ssh").join(name), text).unwrap();
        mode(&world.path().join(".ssh").join(name), 0o600);
    }
    assert_eq!(reached(&world, &["-w", "web"]), expected("two", 3, "first", &[]));
    assert_eq!(reached(&world, &["-w", "unknown"]), expected("last", 22, "ec2-user", &[]));
    assert!(!world.path().join("ran").exists());
}
