//! Login shells, their start-up files, accounts, and what sshd makes of a login.

use super::*;

#[test]
fn login_shells_and_their_files_run_what_they_can_and_say_what_they_cannot() {
    let users = [
        user("bash"),
        User { shell: "dash", ..user("dash") },
        User { shell: "zsh", ..user("zsh") },
        User { shell: "fish", ..user("fish") },
        User { shell: "tcsh", ..user("tcsh") },
        User { shell: "ksh", ..user("ksh") },
        User { shell: "mksh", ..user("mksh") },
        User { shell: "/home/busybox/sh", setup: "ln -s $(command -v busybox) sh", ..user("busybox") },
        User { shell: "rbash", ..user("rbash") },
        User { shell: "/usr/sbin/nologin", ..user("nologin") },
        User { shell: "/bin/false", ..user("false") },
        User { shell: "/bin/no-such-shell", ..user("no-such-shell") },
        User { setup: "echo 'echo hello; echo there >&2' >.bashrc", ..user("bashrc-prints") },
        User { setup: "echo 'yes 0123456789abcde | head -n 3000' >.bashrc", ..user("bashrc-prints-48k") },
        User { setup: "echo 'yes 0123456789abcde | head -n 9000' >.bashrc", ..user("bashrc-prints-144k") },
        User { setup: "echo 'set -x' >.bashrc", ..user("bashrc-traces") },
        User { setup: "echo 'exit 7' >.bashrc", ..user("bashrc-exits") },
        User { setup: "echo 'echo not here; exit 0' >.bashrc", ..user("bashrc-exits-well") },
        User { setup: "echo 'read -r line' >.bashrc", ..user("bashrc-reads-a-line") },
        User { setup: "echo 'kill -KILL $$' >.bashrc", ..user("bashrc-is-killed") },
        User { shell: "zsh", setup: "echo 'echo hello; echo there >&2' >.zshenv", ..user("zshenv-prints") },
        User { shell: "zsh", setup: "echo 'exit 7' >.zshenv", ..user("zshenv-exits") },
        User {
            shell: "fish",
            setup: "mkdir -p .config/fish; echo 'echo hello; echo there >&2' >.config/fish/config.fish",
            ..user("config-fish-prints")
        },
        User {
            shell: "fish",
            setup: "mkdir -p .config/fish; echo 'exit 7' >.config/fish/config.fish",
            ..user("config-fish-exits")
        },
        User { shell: "tcsh", setup: "echo 'echo hello' >.tcshrc", ..user("tcshrc-prints") },
        User { shell: "tcsh", setup: "echo 'exit 7' >.tcshrc", ..user("tcshrc-exits") },
    ];
    let Some(wild) = Wild::start(&users, |_| {}) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @r"
    bash: succeeded
    dash: succeeded
    zsh: succeeded
    fish: succeeded
    tcsh: succeeded
    ksh: succeeded
    mksh: succeeded
    busybox: succeeded
    rbash: unreachable  nothing was started: the login shell or a forced command ended with status 1: rbash: line 1: exec: restricted
    nologin: unreachable  nothing was started: the login shell or a forced command ended with status 1: This account is currently not available.
    false: unreachable  nothing was started: the login shell or a forced command ended with status 1 and said nothing: is it a shell, and does a login file exit?
    no-such-shell: auth_failed  user `no-such-shell`: the host refuses the key SHA256:…
    bashrc-prints: succeeded
    bashrc-prints-48k: succeeded
    bashrc-prints-144k: lost  connection: the host wrote more than 64 KiB before the script could start: see its login files
    bashrc-traces: succeeded
    bashrc-exits: unreachable  nothing was started: the login shell or a forced command ended with status 7 and said nothing: is it a shell, and does a login file exit?
    bashrc-exits-well: unreachable  nothing was started: the login shell or a forced command ended with status 0: not here
    bashrc-reads-a-line: unreachable  nothing was started: the delivery did not arrive whole: does a login file on the host read standard input?
    bashrc-is-killed: unreachable  nothing was started: signal KILL ended the login shell or a forced command
    zshenv-prints: succeeded
    zshenv-exits: unreachable  nothing was started: the login shell or a forced command ended with status 7 and said nothing: is it a shell, and does a login file exit?
    config-fish-prints: succeeded
    config-fish-exits: succeeded
    tcshrc-prints: succeeded
    tcshrc-exits: succeeded
    ");
}

#[test]
fn accounts_let_in_or_say_why_not() {
    let users = [
        User { shadow: "!:19000:0:99999:7:::", ..user("locked") },
        User { shadow: "*:19000:0:99999:7::1:", ..user("expired") },
        User { shadow: "*:0:0:99999:7:::", ..user("password-to-change") },
        User { shadow: "*:19000:0:1:7:0::", ..user("password-expired-for-good") },
    ];
    let Some(wild) = Wild::start(&users, |_| {}) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @r"
    locked: succeeded
    expired: auth_failed  user `expired`: the host closed the connection; it says: Your account has expired; please contact your system administrator.
    password-to-change: unreachable  nothing was started: the login shell or a forced command ended with status 1: WARNING: Your password has expired. Password change required but no TTY available.
    password-expired-for-good: auth_failed  user `password-expired-for-good`: the host closed the connection; it says: Your account has expired; please contact your system administrator.
    ");
    // Without PAM sshd looks for itself, and says less.
    let Some(wild) = Wild::start(&users, |plan| plan.lines = vec!["UsePAM no".to_owned()]) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @r"
    locked: auth_failed  user `locked`: the host refuses the key SHA256:…
    expired: auth_failed  user `expired`: the host refuses the key SHA256:…
    password-to-change: succeeded
    password-expired-for-good: succeeded
    ");
}

#[test]
fn machine_that_is_booting_says_so_and_may_be_tried_again() {
    // systemd-user-sessions(8) writes this at boot.
    let text = "System is booting up. Unprivileged users are not permitted to log in yet. Please come back later. For \
                technical details, see pam_nologin(8).";
    let down = |plan: &mut Plan| writeln!(plan.setup, "echo '{text}' >/etc/nologin").unwrap();
    let Some(wild) = Wild::start(&[user("anyone")], down) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @"anyone: unreachable  authentication: the host closed the connection; it says: System is booting up. Unprivileged users are not permitted to log in yet. Please come back later. For technical details, see pam_nologin(8).");
}

#[test]
fn logins_as_sshd_is_told_to_handle_them() {
    let users = [
        User { sshd: "Banner /run/banner", ..user("banner") },
        user("message-of-the-day"),
        User { sshd: "PermitTTY no", ..user("no-tty") },
        User { sshd: "MaxSessions 1", ..user("max-sessions-1") },
        User { sshd: "MaxSessions 0", ..user("max-sessions-0") },
        User { sshd: "ForceCommand echo the nightly backup only", ..user("force-command") },
        User { sshd: "ForceCommand internal-sftp", ..user("force-sftp") },
        User { sshd: "ForceCommand /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"", ..user("force-what-was-asked") },
        User { setup: "chmod 777 .", sshd: "ChrootDirectory /home/chroot-of-anybody", ..user("chroot-of-anybody") },
        User { sshd: "PubkeyAuthentication no\n  Banner /run/banner", ..user("no-keys") },
        User { sshd: "AuthenticationMethods password", ..user("password") },
        User { sshd: "AuthenticationMethods keyboard-interactive", ..user("keyboard-interactive") },
        User { sshd: "AuthenticationMethods publickey,password", ..user("key-and-password") },
        User { sshd: "AuthenticationMethods publickey,keyboard-interactive", ..user("key-and-code") },
        User { sshd: "AuthenticationMethods publickey,publickey", ..user("two-keys") },
        User { sshd: "AuthorizedKeysFile none\n  Banner /run/banner", ..user("other-key") },
        User { sshd: "MaxAuthTries 1", ..user("max-tries-1") },
    ];
    let fill = |plan: &mut Plan| {
        let setup = "echo Members only. >/run/banner\necho Be kind. >/etc/motd\n";
        plan.setup.push_str(setup);
    };
    let Some(wild) = Wild::start(&users, fill) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @r"
    banner: succeeded
    message-of-the-day: succeeded
    no-tty: succeeded
    max-sessions-1: succeeded
    max-sessions-0: unreachable  opening a channel: the host opens no session: does `MaxSessions` of its sshd allow one?
    force-command: unreachable  nothing was started: the login shell or a forced command ended with status 0: the nightly backup only
    force-sftp: unreachable  nothing was started: the login shell or a forced command ended with status 1: This service allows sftp connections only.
    force-what-was-asked: succeeded
    chroot-of-anybody: unreachable  opening a channel: the host closed the connection
    no-keys: auth_failed  user `no-keys`: the host takes no key of this user, it wants password or keyboard-interactive: nobody is there to give it; it says: Members only.
    password: auth_failed  user `password`: the host takes no key of this user, it wants password: nobody is there to give it
    keyboard-interactive: auth_failed  user `keyboard-interactive`: the host takes no key of this user, it wants keyboard-interactive: nobody is there to give it
    key-and-password: auth_failed  user `key-and-password`: the host accepts the key SHA256:…, and wants a second factor (password): nobody is there to give it
    key-and-code: auth_failed  user `key-and-code`: the host accepts the key SHA256:…, and wants a second factor (keyboard-interactive): nobody is there to give it
    two-keys: auth_failed  user `two-keys`: the host accepts the key SHA256:…, and wants another one as well
    other-key: auth_failed  user `other-key`: the host refuses the key SHA256:…; it says: Members only.
    max-tries-1: succeeded
    ");
}

#[test]
fn cage_without_a_shell_says_so() {
    if !rustix::process::geteuid().is_root() {
        skip::skipped("sshd wants `/` to be root's, and the real root is nobody in an ordinary user's namespace");
        return;
    }
    let caged = User { shell: "/bin/bash", sshd: "ChrootDirectory /run/cage", ..user("caged") };
    let Some(wild) = Wild::start(&[caged], |plan| plan.setup.push_str("mkdir /run/cage\n")) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @"caged: unreachable  nothing was started: the login shell or a forced command ended with status 1: /bin/bash: No such file or directory");
}
