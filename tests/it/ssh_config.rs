//! Settings of `~/.ssh/config`: read as ssh reads them, and obeyed for hosts that are named with `-w`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use sshjob::domain::ssh_config::{Asked, HostSettings, Proxy, SshConfig};

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
    found.proxy = found.proxy.filter(|proxy| *proxy != Proxy::None);
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
    let local_user = crate::support::sshd::user();
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
