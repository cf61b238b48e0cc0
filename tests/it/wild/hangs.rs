//! Start-up files that never end.

use super::*;

#[test]
fn start_up_file_that_hangs_ends_the_wait_for_it() {
    let users = [
        User { setup: "echo 'sleep 1000' >.bashrc", ..user("bashrc") },
        User { setup: "echo 'echo Please wait.; cat >/dev/null' >.bashrc", ..user("bashrc-that-reads") },
        User { shell: "zsh", setup: "echo 'sleep 1000' >.zshenv", ..user("zshenv") },
        User {
            shell: "fish",
            setup: "mkdir -p .config/fish; echo 'sleep 1000' >.config/fish/config.fish",
            ..user("config-fish")
        },
        User { shell: "tcsh", setup: "echo 'sleep 1000' >.tcshrc", ..user("tcshrc") },
        User { sshd: "ForceCommand sleep 1000", ..user("force-command") },
    ];
    let Some(wild) = Wild::start(&users, |_| {}) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&["--connect-timeout", "5s"])), @r"
    bashrc: lost  connection: no word of the script within 15s: does a login file hang?
    bashrc-that-reads: unreachable  nothing was started: the delivery did not arrive whole: does a login file on the host read standard input?
    zshenv: lost  connection: no word of the script within 15s: does a login file hang?
    config-fish: lost  connection: no word of the script within 15s: does a login file hang?
    tcshrc: lost  connection: no word of the script within 15s: does a login file hang?
    force-command: lost  connection: no word of the script within 15s: does a login file hang?
    ");
}

#[test]
fn script_that_starts_when_nobody_waits_any_more_is_ended() {
    // It hangs until our input ends, and then lets all of it through.
    let setup = "cat >.bashrc <<'BASHRC'
python3 -c 'import select; it = select.poll(); it.register(0, select.POLLRDHUP | select.POLLHUP); it.poll()'
BASHRC";
    let Some(wild) = Wild::start(&[User { setup, ..user("bashrc") }], |_| {}) else { return };
    fs::write(wild.world.path().join("script"), "#!/bin/sh\nexec sleep 1000\n").unwrap();
    insta::assert_snapshot!(wild.table(&wild.run(&["--connect-timeout", "5s"])), @"bashrc: timed_out  signal TERM  ended, for it started too late: is a login file slow?");
}
