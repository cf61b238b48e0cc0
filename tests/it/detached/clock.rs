//! A host whose clock is set while programs run: by libfaketime, for all that a session starts. Files have the kernel's
//! times all the same, as those that are older than the change have on a real host.

use super::*;

impl Host {
    /// The same with a clock that can be set; `None`, said aloud, where libfaketime is not installed.
    fn with_clock(mut self) -> Option<Self> {
        let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
        let library = libraries.map(|dir| dir.join("faketime/libfaketime.so.1")).find(|path| path.exists());
        let Some(library) = library else {
            skip::missing("libfaketime");
            return None;
        };
        let clock = self.dir("clock");
        self.variables = vec![
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", clock.into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ];
        self.set_clock("+0");
        Some(self)
    }

    /// Sets the clock by this much, as in `-3d`, from what it really is.
    fn set_clock(&self, by: &str) {
        // Renamed: nobody reads half of it.
        std::fs::write(self.dir("clock.new"), by).unwrap();
        std::fs::rename(self.dir("clock.new"), self.dir("clock")).unwrap();
    }

    /// When the watch of `attempt` last beat.
    fn beat(&self, attempt: &Attempt) -> Option<Duration> {
        let Verdict::Running { beat, elapsed, supervised: true } = self.verdict(attempt) else { return None };
        // Told as an age.
        elapsed.checked_sub(beat?)
    }
}

/// Starts a script for at most `timeout`, and waits until it says that it is up.
#[track_caller]
fn up(host: &Host, script: &str, timeout: Duration, attempt: &Attempt) {
    let script: Arc<[u8]> = Arc::from(script.as_bytes());
    let program = Program::Script { bytes: &script, args: &[] };
    assert_eq!(host.start_on(&Terms { timeout, ..TERMS }, program, attempt), Ok(Started::Now));
    eventually("the script is up", || host.look(attempt, 0, 0, 3).out.bytes == b"up\n");
}

/// Sets the clock while two programs run; only one of them takes too long.
fn set_while_they_run(by: &str) {
    let Some(host) = Host::new().with_clock() else { return };
    let (endless, patient) = (attempt(1), attempt(2));
    up(&host, "#!/bin/sh\necho up; exec tail -f /dev/null", Duration::from_secs(4), &endless);
    let script = "#!/bin/sh\necho up; date +%s; while [ ! -e go ]; do sleep 0.01; done; date +%s";
    up(&host, script, Duration::from_mins(10), &patient);
    let before = host.beat(&patient).unwrap();
    host.set_clock(by);
    let found = host.wait(&endless);
    let Verdict::Ended { how, why, took, .. } = found.verdict else { panic!("{by}: {found:?}") };
    assert_eq!((how, why), (signal(15), Why::TimedOut), "{by}");
    assert!(took >= Duration::from_secs(4), "{by}: {took:?}");
    eventually("its watch has looked at the time", || host.beat(&patient).unwrap() > before);
    std::fs::write(host.dir("home").join("go"), "").unwrap();
    let found = host.wait(&patient);
    let Verdict::Ended { how, why, took, ago } = found.verdict else { panic!("{by}: {found:?}") };
    assert_eq!((how, why), (How::Exit(0), Why::Itself), "{by}");
    assert!(took < Duration::from_hours(1) && ago.unwrap() < Duration::from_hours(1), "{by}: {took:?} {ago:?}");
    let said = String::from_utf8(found.out.bytes).unwrap();
    let times: Vec<i64> = said.lines().skip(1).map(|line| line.parse().unwrap()).collect();
    assert!((times[1] - times[0]).abs() > 300 * 86_400, "the clock was set: {times:?}");
}

#[test]
fn clock_that_is_set_ends_no_program_early_and_none_late() {
    std::thread::scope(|scope| {
        for by in ["-400d", "+400d"] {
            scope.spawn(move || set_while_they_run(by));
        }
    });
}

#[test]
fn clock_that_is_set_back_hides_no_cancelled_program() {
    let Some(host) = Host::new().with_clock() else { return };
    let one = attempt(1);
    up(&host, "#!/bin/sh\necho up; exec tail -f /dev/null", Duration::from_mins(10), &one);
    host.set_clock("-400d");
    assert_eq!(host.cancel(&one).deed, cancel::Deed::Signalled);
    assert_eq!(how(&host.wait(&one).verdict), (signal(15), Why::Cancelled));
}

/// Runs an attempt to its end, and waits until its supervisor, which sweeps last, is gone.
#[track_caller]
fn sweep(host: &Host, attempt: &Attempt) {
    assert_eq!(host.start("#!/bin/sh", attempt), Ok(Started::Now));
    let own = std::fs::read_to_string(host.home_of(attempt).join("self")).unwrap();
    let supervisor = own.split(' ').nth(1).unwrap().to_owned();
    eventually("it has been swept", || !Path::new("/proc").join(&supervisor).exists());
}

#[test]
fn clock_that_is_set_removes_nothing_early_and_keeps_nothing_for_ever() {
    let Some(host) = Host::new().with_clock() else { return };
    let (recent, old) = (attempt(1), attempt(2));
    for one in [&recent, &old] {
        sweep(&host, one);
    }
    let forge = |name: &str, word: usize, to: &str| {
        let file = host.home_of(&old).join(name);
        let text = std::fs::read_to_string(&file).unwrap();
        let mut words: Vec<&str> = text.split(' ').collect();
        words[word] = to;
        std::fs::write(&file, words.join(" ")).unwrap();
    };
    // This one ended as soon as its host was booted, which is more than a minute ago.
    forge("status", 3, "1.00");
    host.set_clock("+400d");
    sweep(&host, &attempt(3));
    assert!(host.home_of(&recent).exists() && host.home_of(&old).exists(), "no week has passed");
    // And it was to stay for a minute.
    forge("self", 7, "1");
    host.set_clock("-400d");
    sweep(&host, &attempt(4));
    assert!(host.home_of(&recent).exists() && !host.home_of(&old).exists(), "it is not from the future");
}
