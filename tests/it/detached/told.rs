//! What is told of an attempt is what happened.

use super::*;

#[test]
fn program_runs_on_and_its_end_is_told_under_every_shell() {
    for (shell, host) in Host::of_every_shell() {
        let script = "#!/bin/sh\necho out; echo err >&2; while [ ! -e go ]; do sleep 0.01; done; echo late; exit 7";
        let one = attempt(1);
        assert_eq!(host.start(script, &one), Ok(Started::Now), "{shell}");
        assert!(matches!(host.verdict(&one), Verdict::Running { supervised: true, .. }), "{shell}");
        assert_eq!(host.start(script, &one), Ok(Started::Before), "{shell}");
        std::fs::write(host.dir("home").join("go"), "").unwrap();
        let found = host.wait(&one);
        assert_eq!(how(&found.verdict), (How::Exit(7), Why::Itself), "{shell}");
        assert_eq!((found.out, found.err), (whole(b"out\nlate\n"), whole(b"err\n")), "{shell}");
    }
}

#[test]
fn statuses_and_signals_are_told_apart_under_every_shell() {
    let endings = [
        ("exit 0", How::Exit(0)),
        ("exit 137", How::Exit(137)),
        ("exit 143", How::Exit(143)),
        ("exit 255", How::Exit(255)),
        ("kill -9 $$", signal(9)),
        ("kill -15 $$", signal(15)),
        ("kill -11 $$", signal(11)),
    ];
    for (shell, host) in Host::of_every_shell() {
        for (number, (script, expected)) in (1..).zip(endings) {
            host.start(script, &attempt(number)).unwrap();
            assert_eq!(how(&host.wait(&attempt(number)).verdict), (expected, Why::Itself), "{shell}: {script}");
        }
    }
}

#[test]
fn output_is_told_byte_for_byte_from_any_offset() {
    let host = Host::new();
    let one = attempt(1);
    // Files that are opened anew, as by `echo >/dev/stderr`, must not lose what they hold.
    let script = "#!/bin/sh\ni=0; while [ $i -lt 3000 ]; do echo \"line $i\"; echo \"error $i\" >/dev/stderr; \
                  i=$((i + 1)); done; printf 'no \\0 end'";
    host.start(script, &one).unwrap();
    let lines = |word: &str| (0..3000).flat_map(|n| [word.to_owned(), format!(" {n}\n")]).collect::<String>();
    let (out, err) = (lines("line") + "no \0 end", lines("error"));
    let (mut seen_out, mut seen_err) = (Vec::new(), Vec::new());
    // A thousand bytes at a time, from the beginning on and beyond the end.
    loop {
        let found = host.look(&one, seen_out.len() as u64, seen_err.len() as u64, 5000);
        seen_out.extend(found.out.bytes);
        seen_err.extend(found.err.bytes);
        let all = seen_out.len() as u64 == found.out.stored && seen_err.len() as u64 == found.err.stored;
        if all && !matches!(found.verdict, Verdict::Running { .. }) {
            break;
        }
    }
    assert!(seen_out == out.as_bytes() && seen_err == err.as_bytes());
    let beyond = host.look(&one, 1 << 40, 1, 3);
    assert_eq!(beyond.out, Piece { bytes: Vec::new(), stored: out.len() as u64, dropped: None });
    assert_eq!(beyond.err.bytes, b"rro");
}

#[test]
fn output_beyond_the_limit_is_counted() {
    // Some kernels do not say how far a file is written.
    let silent = Host::new().stand_in("/proc/self/fdinfo/3", "flags:\t0102001\n");
    for (shell, host) in Host::of_every_shell().into_iter().chain([("a silent kernel", silent)]) {
        let one = attempt(1);
        for (number, max) in [(1, 0), (2, 1), (3, 5000), (4, 70_001), (5, 200_000), (6, 200_001)] {
            let terms = Terms { max_output: max, ..TERMS };
            let one = attempt(number);
            let words =
                ["sh", "-c", "head -c 100000 /dev/zero; echo; sleep 0.01; head -c 99999 /dev/zero; echo err >&2"];
            let words = words.map(|word| word.as_bytes().to_vec());
            assert_eq!(host.start_on(&terms, Program::Command(&words), &one), Ok(Started::Now), "{shell}");
            let found = host.wait(&one);
            assert_eq!(how(&found.verdict), (How::Exit(0), Why::Itself), "{shell}: {max}");
            let (stored, dropped) = (max.min(200_000), 200_000_u64.saturating_sub(max));
            let expected = (stored, (dropped > 0).then_some(dropped), stored);
            assert_eq!((found.out.stored, found.out.dropped, found.out.bytes.len() as u64), expected, "{shell}: {max}");
        }
        assert_eq!(host.wait(&one).err.dropped, Some(4), "{shell}");
    }
}

#[test]
fn attempts_that_are_not_there_have_vanished_and_many_are_told_at_once() {
    for (shell, host) in Host::of_every_shell() {
        host.start("#!/bin/sh\nexit 4", &attempt(1)).unwrap();
        host.start("#!/bin/sh\nexit 5", &attempt(3)).unwrap();
        host.wait(&attempt(1));
        host.wait(&attempt(3));
        let ask = |number| Ask::Look { attempt: attempt(number), out: 0, err: 0, most: 9 };
        let found = host.asked(&[ask(1), ask(2), Ask::Forget(attempt(1)), ask(1), ask(3)]).unwrap();
        let hows = [0, 4].map(|n| how(&found[n].verdict).0);
        assert_eq!(hows, [How::Exit(4), How::Exit(5)], "{shell}");
        assert!([1, 2, 3].iter().all(|n| found[*n].verdict == Verdict::Vanished), "{shell}");
        host.asked(&[Ask::Forget(attempt(3))]).unwrap();
        assert_eq!(std::fs::read_dir(host.dir("home").join(".sshjob")).unwrap().count(), 0, "{shell}");
    }
}

#[test]
fn signals_that_shells_keep_quiet_about_are_told_as_they_tell_them() {
    for (shell, host) in Host::of_every_shell() {
        for number in [2_u8, 13] {
            let one = attempt(u32::from(number));
            host.start(&format!("#!/bin/sh\nkill -{number} $$"), &one).unwrap();
            let (how, why) = how(&host.wait(&one).verdict);
            assert!(how == signal(number) || how == How::Exit(128 + number), "{shell}: {how:?}");
            assert_eq!(why, Why::Itself, "{shell}");
        }
    }
}

#[test]
fn flood_is_told_byte_for_byte_in_bounded_pieces() {
    let host = Host::new();
    let one = attempt(1);
    let script = "#!/bin/sh\nhead -c 40000000 /dev/zero | tr '\\0' x; echo end";
    host.start(script, &one).unwrap();
    let (mut seen, mut last) = (0, Vec::new());
    loop {
        let found = host.look(&one, seen, 0, 1 << 20);
        assert!(found.out.bytes.len() <= 1 << 20);
        seen += found.out.bytes.len() as u64;
        if let Some(byte) = found.out.bytes.iter().find(|byte| **byte != b'x') {
            assert_eq!((*byte, seen > 40_000_000), (b'e', true));
        }
        if found.out.bytes.is_empty() && !matches!(found.verdict, Verdict::Running { .. }) {
            break;
        }
        last = if found.out.bytes.is_empty() { last } else { found.out.bytes };
    }
    assert_eq!((seen, &last[last.len().saturating_sub(4)..]), (40_000_004, &b"end\n"[..]));
}
