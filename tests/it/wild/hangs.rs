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
