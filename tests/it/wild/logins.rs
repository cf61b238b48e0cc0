//! Every way in which a login can go.

use super::*;

#[test]
fn try_it() {
    let shells = ["bash", "dash", "zsh", "fish", "tcsh", "ksh", "mksh", "rbash", "sh", "false"];
    let other: Vec<&str> = "busybox nologin ghost noisy quits fails zprints zexits fprints fexits tprints texits banner forced obedient sftp jail homeless full readonly noexec notty onesession nosession password kbd pwtoo kbdtoo twokeys expired locked aged tries".split(' ').collect();
    let users = [&shells[..], &other[..]].concat();
    let Some(wild) = Wild::start(&users, |plan| {
        plan.setup
            .push_str("echo 'Welcome to the machine' >/etc/motd\nmkdir /run/jail\necho 'Members only.' >/run/banner\n");
        for shell in shells {
            plan.user(shell, &format!("$(command -v {shell})"), "");
        }
        plan.user("busybox", "/home/busybox/sh", "ln -s $(command -v busybox) sh");
        plan.user("nologin", "/usr/sbin/nologin", "");
        plan.user("ghost", "/bin/no-such-shell", "");
        let print = "echo from a start-up file; echo and an error >&2";
        plan.user("noisy", "/bin/bash", &format!("echo '{print}' >.bashrc"));
        plan.user("quits", "/bin/bash", "echo 'echo go away; exit 0' >.bashrc");
        plan.user("fails", "/bin/bash", "echo 'exit 7' >.bashrc");
        plan.user("zprints", "/bin/zsh", &format!("echo '{print}' >.zshenv"));
        plan.user("zexits", "/bin/zsh", "echo 'exit 7' >.zshenv");
        plan.user(
            "fprints",
            "/usr/bin/fish",
            &format!("mkdir -p .config/fish; echo '{print}' >.config/fish/config.fish"),
        );
        plan.user("fexits", "/usr/bin/fish", "mkdir -p .config/fish; echo 'exit 7' >.config/fish/config.fish");
        plan.user("tprints", "/bin/tcsh", "echo 'echo from a start-up file' >.tcshrc");
        plan.user("texits", "/bin/tcsh", "echo 'exit 7' >.tcshrc");
        for user in
            "banner forced obedient sftp jail notty onesession nosession password kbd pwtoo kbdtoo twokeys tries"
                .split(' ')
        {
            plan.user(user, "/bin/bash", "");
        }
        plan.only_for("banner", &["Banner /run/banner"]);
        plan.only_for("forced", &["ForceCommand echo the nightly backup only"]);
        plan.only_for("obedient", &["ForceCommand /bin/sh -c \"$SSH_ORIGINAL_COMMAND\""]);
        plan.only_for("sftp", &["ForceCommand internal-sftp"]);
        plan.only_for("jail", &["ChrootDirectory /run/jail"]);
        plan.only_for("notty", &["PermitTTY no"]);
        plan.only_for("onesession", &["MaxSessions 1"]);
        plan.only_for("nosession", &["MaxSessions 0"]);
        plan.only_for("password", &["AuthenticationMethods password"]);
        plan.only_for("kbd", &["AuthenticationMethods keyboard-interactive"]);
        plan.only_for("pwtoo", &["AuthenticationMethods publickey,password"]);
        plan.only_for("kbdtoo", &["AuthenticationMethods publickey,keyboard-interactive"]);
        plan.only_for("twokeys", &["AuthenticationMethods publickey,publickey"]);
        plan.only_for("tries", &["MaxAuthTries 1"]);
        plan.user("homeless", "/bin/bash", "cd /; rmdir /home/homeless");
        plan.user(
            "full",
            "/bin/bash",
            "mount -t tmpfs -o size=16k,mode=777 full .; cat /dev/zero >/home/full/zero 2>/dev/null || :",
        );
        plan.user("readonly", "/bin/bash", "mount -t tmpfs -o ro readonly .");
        plan.user("noexec", "/bin/bash", "mount -t tmpfs -o noexec,mode=777 noexec .");
        plan.user_with("expired", "/bin/bash", "*:19000:0:99999:7::1:", "");
        plan.user_with("locked", "/bin/bash", "!:19000:0:99999:7:::", "");
        plan.user_with("aged", "/bin/bash", "*:0:0:99999:7:::", "");
    }) else {
        return;
    };
    let out = wild.run(&[]);
    println!("{}\n{}", wild.said(&out), wild.machine.log());
}
