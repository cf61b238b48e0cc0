//! User certificates that a host takes, and those that it does not.

use std::process::Command;

use super::*;
use crate::support::key;

/// Makes a key `name` in the world's folder, and a certificate beside it by the authority `ca` there.
fn certify(wild: &Wild, ca: &str, name: &str, options: &[&str]) {
    let folder = wild.world.path();
    let fresh = key::fresh();
    key::write(&fresh, &folder.join(name));
    fs::write(folder.join(format!("{name}.pub")), fresh.public_key().to_openssh().unwrap()).unwrap();
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-s", ca, "-I", name]).args(options).arg(format!("{name}.pub"));
    assert!(command.current_dir(folder).env("TZ", "UTC").status().unwrap().success(), "{name}");
}

#[test]
fn certificates_let_in_or_say_why_not() {
    let (ours, theirs) = (key::fresh(), key::fresh());
    let lines = ["AuthorizedKeysFile none", "TrustedUserCAKeys /run/ca"].map(str::to_owned);
    let trusting = |plan: &mut Plan| {
        plan.lines.splice(0..0, lines);
        writeln!(plan.setup, "echo '{}' >/run/ca", ours.public_key().to_openssh().unwrap()).unwrap();
    };
    let Some(wild) = Wild::start(&[user("ann")], trusting) else { return };
    key::write(&ours, &wild.world.path().join("ours"));
    key::write(&theirs, &wild.world.path().join("theirs"));
    let cases: [(&str, &str, &[&str]); 8] = [
        ("valid", "ours", &["-n", "ann,bob"]),
        ("valid-for-little", "ours", &["-n", "ann", "-O", "clear"]),
        ("expired", "ours", &["-n", "ann", "-V", "20200101:20200102"]),
        ("not-yet-valid", "ours", &["-n", "ann", "-V", "20900101:20910101"]),
        ("of-another-user", "ours", &["-n", "bob"]),
        ("for-other-addresses", "ours", &["-n", "ann", "-O", "source-address=192.0.2.0/24"]),
        ("with-unknown-critical-option", "ours", &["-n", "ann", "-O", "critical:door@example.com=open"]),
        ("of-another-authority", "theirs", &["-n", "ann"]),
    ];
    let mut table = String::new();
    for (name, ca, options) in cases {
        certify(&wild, ca, name, options);
        let line = wild.table(&wild.run(&["-i", name]));
        write!(table, "{name} {}", line.replace(&wild.world.path().display().to_string(), "")).unwrap();
    }
    insta::assert_snapshot!(table, @r"
    valid ann: succeeded
    valid-for-little ann: succeeded
    expired ann: auth_failed  user `ann`: the host refuses the key SHA256:…; the certificate `/expired-cert.pub` expired at 2020-01-02T00:00:00Z
    not-yet-valid ann: auth_failed  user `ann`: the host refuses the key SHA256:…; the certificate `/not-yet-valid-cert.pub` is not valid before 2090-01-01T00:00:00Z
    of-another-user ann: auth_failed  user `ann`: the host refuses the key SHA256:… and its certificate (for `bob`, by SHA256:…)
    for-other-addresses ann: auth_failed  user `ann`: the host refuses the key SHA256:… and its certificate (for `ann`, by SHA256:…, valid from `192.0.2.0/24` alone)
    with-unknown-critical-option ann: auth_failed  user `ann`: the host refuses the key SHA256:… and its certificate (for `ann`, by SHA256:…, with the critical option `door@example.com`)
    of-another-authority ann: auth_failed  user `ann`: the host refuses the key SHA256:… and its certificate (for `ann`, by SHA256:…)
    ");
}
