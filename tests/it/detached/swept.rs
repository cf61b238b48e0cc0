//! What is removed of attempts that nobody collects, and what stays.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn what_nobody_collects_goes_after_its_time_and_beyond_fifty() {
    let host = Host::new();
    let dir = |number| host.home_of(&attempt(number));
    for number in 1..=60 {
        host.owned(&attempt(number));
        std::fs::write(dir(number).join("self"), format!("t 999999999 1 b 1.00 1 1 - {}\n", hostname())).unwrap();
        // The last ten are the oldest: of two hours, of eight days.
        let age = ["now", "2 hours ago", "8 days ago"][usize::from(number > 50) + usize::from(number > 55)];
        assert!(Command::new("touch").args(["-d", age]).arg(dir(number)).status().unwrap().success());
    }
    // One of them runs, however old.
    std::fs::write(dir(60).join("self"), me()).unwrap();
    std::fs::write(dir(60).join("leader"), "\n").unwrap();
    assert!(Command::new("touch").args(["-d", "8 days ago"]).arg(dir(60)).status().unwrap().success());
    assert_eq!(host.start("#!/bin/sh", &attempt(61)), Ok(Started::Now));
    let kept = |number: &u32| dir(*number).parent().unwrap().exists();
    eventually("it is swept", || (51..=59).filter(kept).count() == 0);
    host.wait(&attempt(61));
    assert_eq!((1..=61).filter(kept).count(), 52);
}

/// Starts a script on these terms, and waits until its supervisor, which sweeps last, is gone.
#[track_caller]
fn sweep(host: &Host, keep: Duration, attempt: &Attempt) {
    let program = Program::Script { bytes: &Arc::from(*b"#!/bin/sh\n"), args: &[] };
    assert_eq!(host.start_on(&Terms { keep, ..TERMS }, program, attempt), Ok(Started::Now));
    let own = std::fs::read_to_string(host.home_of(attempt).join("self")).unwrap();
    let supervisor = Path::new("/proc").join(own.split(' ').nth(1).unwrap());
    eventually("it has swept", || !supervisor.exists());
}

#[test]
fn attempt_stays_for_as_long_as_its_own_job_says_whoever_sweeps() {
    for (shell, host) in Host::of_every_shell() {
        let dir = |number| host.home_of(&attempt(number));
        // What is to stay for a week, for an hour; both have ended two hours ago.
        for (number, keep) in [(1, 7 * 24 * 60), (2, 60)] {
            std::fs::create_dir_all(dir(number)).unwrap();
            std::fs::write(dir(number).join("self"), format!("t 999999999 1 b 1.00 1 1 {keep} elsewhere\n")).unwrap();
            assert!(Command::new("touch").args(["-d", "2 hours ago"]).arg(dir(number)).status().unwrap().success());
        }
        let week = Duration::from_hours(7 * 24);
        for (number, keep) in [(3, Duration::from_mins(1)), (4, week)] {
            sweep(&host, keep, &attempt(number));
            let left: Vec<u32> = (1..=4).filter(|number| dir(*number).exists()).collect();
            assert_eq!(left, [1].into_iter().chain(3..=number).collect::<Vec<_>>(), "{shell}: {keep:?}");
        }
    }
}

#[test]
fn both_places_are_swept_where_they_are_ours() {
    for (shell, host) in Host::of_every_shell() {
        let spare = host.dir("spare").join(format!("sshjob-{}", rustix::process::geteuid().as_raw()));
        let old = spare.join(attempt(1).to_string()).join("0".repeat(32));
        let age = || {
            std::fs::create_dir_all(&old).unwrap();
            std::fs::write(old.join("self"), "t 999999999 1 b 1.00 1 1 60 elsewhere\n").unwrap();
            assert!(Command::new("touch").args(["-d", "2 hours ago"]).arg(&old).status().unwrap().success());
        };
        age();
        let allow = |mode| std::fs::set_permissions(&spare, std::fs::Permissions::from_mode(mode)).unwrap();
        allow(0o777);
        sweep(&host, Duration::from_hours(1), &attempt(2));
        assert!(old.exists(), "{shell}: what others can write is nobody's");
        allow(0o700);
        sweep(&host, Duration::from_hours(1), &attempt(3));
        assert!(!old.exists(), "{shell}");
        assert!(host.home_of(&attempt(2)).exists(), "{shell}");
        // The other way round: one that runs in the place of last resort finds what is at home.
        let at_home = host.home_of(&attempt(1));
        std::fs::create_dir_all(at_home.parent().unwrap()).unwrap();
        age();
        std::fs::rename(&old, &at_home).unwrap();
        let (hidden, shown) = (host.dir("hidden"), host.dir("home").join(".sshjob"));
        std::fs::rename(&shown, &hidden).unwrap();
        std::fs::write(&shown, "").unwrap();
        let script = "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.01; done";
        assert_eq!(host.start(script, &attempt(4)), Ok(Started::Now), "{shell}");
        std::fs::remove_file(&shown).unwrap();
        std::fs::rename(&hidden, &shown).unwrap();
        std::fs::write(host.dir("home").join("go"), "").unwrap();
        eventually("the home is swept", || !at_home.exists());
    }
}

#[test]
fn more_than_five_hundred_that_nobody_collects_do_not_stay_however_young() {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let up = std::fs::read_to_string("/proc/uptime").unwrap();
    let (boot, up) = (boot.trim_end(), up.split(' ').next().unwrap());
    for (shell, host) in Host::of_every_shell() {
        let dir = |number| host.home_of(&attempt(number));
        for number in 1..=520 {
            std::fs::create_dir_all(dir(number)).unwrap();
            let own = format!("t 999999999 1 {boot} {up} 1 1 10080 {}\n", hostname());
            std::fs::write(dir(number).join("self"), own).unwrap();
            std::fs::write(dir(number).join("beat"), format!("{up} 0 \n")).unwrap();
            std::fs::write(dir(number).join("status"), format!("exit 0 done {up} -\n")).unwrap();
        }
        // Of somebody who runs, and of another host, nothing is taken.
        std::fs::write(dir(519).join("self"), me()).unwrap();
        std::fs::write(dir(520).join("self"), "t 999999999 1 b 1.00 1 1 10080 elsewhere\n").unwrap();
        sweep(&host, Duration::from_hours(7 * 24), &attempt(521));
        let left = (1..=518).filter(|number| dir(*number).exists()).count();
        assert_eq!((left, dir(519).exists(), dir(520).exists(), dir(521).exists()), (500, true, true, true), "{shell}");
    }
}

#[test]
fn home_is_looked_through_once_a_minute() {
    for (shell, host) in Host::of_every_shell() {
        let old = |number| {
            let dir = host.home_of(&attempt(number));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("self"), format!("t 999999999 1 b 1.00 1 1 - {}\n", hostname())).unwrap();
            assert!(Command::new("touch").args(["-d", "8 days ago"]).arg(&dir).status().unwrap().success());
            dir
        };
        let start = |number| {
            assert_eq!(host.start("#!/bin/sh", &attempt(number)), Ok(Started::Now), "{shell}");
            let own = std::fs::read_to_string(host.home_of(&attempt(number)).join("self")).unwrap();
            let supervisor = Path::new("/proc").join(own.split(' ').nth(1).unwrap());
            eventually("it has been swept, or not", || !supervisor.exists());
        };
        // A few are looked through every time.
        for number in 11..=20 {
            let many = Attempt { run: "many-20261122T221500Z".parse().unwrap(), ..attempt(number) };
            std::fs::create_dir_all(host.home_of(&many)).unwrap();
        }
        let first = old(1);
        start(2);
        assert!(!first.exists(), "{shell}");
        let second = old(3);
        start(4);
        assert!(second.exists(), "{shell}");
        let swept = host.dir("home").join(".sshjob/.swept");
        let text = std::fs::read_to_string(&swept).unwrap();
        let (at, boot) = text.split_once(' ').unwrap();
        std::fs::write(&swept, format!("{:.2} {boot}", at.parse::<f64>().unwrap() - 61.0)).unwrap();
        start(5);
        assert!(!second.exists(), "{shell}");
    }
}

#[test]
fn what_other_hosts_have_in_a_home_that_is_shared_is_theirs() {
    for (shell, host) in Host::of_every_shell() {
        let dir = |number| host.home_of(&attempt(number));
        let age = |path: PathBuf, hours| {
            let then = std::time::SystemTime::now() - Duration::from_hours(hours);
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        };
        for number in 1..=60 {
            std::fs::create_dir_all(dir(number)).unwrap();
            std::fs::write(dir(number).join("self"), "t 999999999 1 b 1.00 1 1 - elsewhere\n").unwrap();
            std::fs::write(dir(number).join("beat"), "1.00\n").unwrap();
            // One runs there for more than a week, one has ended there as long ago, the others this morning.
            let (beat, claim) = [(0, 200), (200, 200), (2, 2)][number.min(3) as usize - 1];
            age(dir(number).join("beat"), beat);
            age(dir(number), claim);
        }
        assert_eq!(host.start("#!/bin/sh", &attempt(61)), Ok(Started::Now), "{shell}");
        let own = std::fs::read_to_string(dir(61).join("self")).unwrap();
        let supervisor = Path::new("/proc").join(own.split(' ').nth(1).unwrap());
        eventually("it is swept", || !supervisor.exists());
        let gone: Vec<u32> = (1..=61).filter(|number| !dir(*number).exists()).collect();
        assert_eq!(gone, [2], "{shell}");
    }
}

/// What this machine calls itself.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim_end().to_owned()
}

/// A record that says that the supervisor is this very process.
fn me() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let born = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned();
    format!("t {} {born} b 1.00 1 1 - {}\n", std::process::id(), hostname())
}
