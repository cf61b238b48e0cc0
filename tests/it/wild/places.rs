//! Homes and temporary directories in which little or nothing can be done.

use super::*;

/// A home of its own that takes nothing.
const FULL: &str = "mount -t tmpfs -o size=16k,mode=777 full . && cat /dev/zero 2>/dev/null >/home/full/zero || :";

#[test]
fn home_in_which_nothing_can_be_done_is_not_needed() {
    let users = [
        User { setup: "cd / && rmdir /home/missing", ..user("missing") },
        User { setup: FULL, ..user("full") },
        User { setup: "mount -t tmpfs -o ro read-only .", ..user("read-only") },
        User { setup: "mount -t tmpfs -o noexec,mode=777 noexec .", ..user("noexec") },
        User { setup: "chmod 0 .; chown root .", ..user("forbidden") },
    ];
    let Some(wild) = Wild::start(&users, |_| {}) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @r"
    missing: succeeded
    full: succeeded
    read-only: succeeded
    noexec: succeeded
    forbidden: succeeded
    ");
}

#[test]
fn script_runs_where_nothing_may_be_executed() {
    let users =
        [user("tmp-noexec"), User { setup: "mount -t tmpfs -o noexec,mode=777 noexec .", ..user("all-noexec") }];
    let noexec = "for place in /tmp /var/tmp /dev/shm; do mount -o remount,noexec $place; done\n";
    let Some(wild) = Wild::start(&users, |plan| plan.setup.push_str(noexec)) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @r"
    tmp-noexec: succeeded
    all-noexec: succeeded
    ");
}

#[test]
fn script_runs_where_there_is_any_room() {
    let users = [user("tmp-full"), User { setup: FULL, ..user("full") }];
    let full = "for place in /tmp /var/tmp; do mount -t tmpfs -o size=16k,mode=1777 full $place; cat /dev/zero 2>/dev/null >$place/zero || :; done
        mount -o remount,ro /dev/shm\n";
    let Some(wild) = Wild::start(&users, |plan| plan.setup.push_str(full)) else { return };
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @r"
    tmp-full: succeeded
    full: unreachable  nothing was started: no room for the script on the host: tried `$TMPDIR`, `/tmp`, `/var/tmp`, `$HOME` and `/dev/shm`
    ");
}
