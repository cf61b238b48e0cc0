//! What a program sees of its supervisor, and what anybody sees of both.

use super::*;

/// What [`Host::start_on`] gives every program.
const SECRET: &[u8] = b"hidden from files";

fn holds(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// The process, and all that it descends from on its host, by their numbers in /proc.
fn session(host: &Host, attempt: &Attempt) -> Vec<PathBuf> {
    let home = format!("HOME={}", host.dir("home").display());
    let is_ours = |process: &PathBuf| {
        std::fs::read(process.join("environ"))
            .is_ok_and(|text| text.split(|byte| *byte == 0).any(|it| it == home.as_bytes()))
    };
    let found: Vec<_> =
        std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(is_ours).collect();
    assert!(found.len() >= 3, "supervisor, watch and program of {attempt}: {found:?}");
    found
}

#[test]
fn program_has_its_variables_and_none_of_the_supervisor_s() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        let words = ["env".as_bytes().to_vec()];
        assert_eq!(host.start_on(&TERMS, Program::Command(&words), &one), Ok(Started::Now), "{shell}");
        let found = String::from_utf8(host.wait(&one).out.bytes).unwrap();
        // What a shell has for itself.
        let own = ["_", "PWD", "OLDPWD", "SHLVL", "_AST_FEATURES"];
        let mut names: Vec<_> = found.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        names.retain(|name| !own.contains(name));
        names.sort_unstable();
        assert_eq!(names, ["HOME", "PATH", "SECRET", "SSHJOB_ATTEMPT", "SSHJOB_INSTANCE", "SSHJOB_RUN_ID"], "{shell}");
        let expected = [
            format!("SSHJOB_RUN_ID={}", one.run),
            format!("SSHJOB_INSTANCE={}", one.instance),
            "SSHJOB_ATTEMPT=1".to_owned(),
            format!("SECRET={}", String::from_utf8_lossy(SECRET)),
        ];
        for line in expected {
            assert!(found.lines().any(|found| found == line), "{shell}: {line}");
        }
    }
}

#[test]
fn process_list_shows_no_variable_of_the_program_s() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        // What is too large for a variable comes another way.
        for (number, large) in [(1, 0), (2, 70_000)] {
            let (one, filler) = (Attempt { number, ..one.clone() }, vec![b'x'; large]);
            let words = ["tail", "-f", "/dev/null"].map(|word| word.as_bytes().to_vec());
            let detached = Detached::new(Program::Command(&words), &Sudo::No, &TERMS).unwrap();
            let env: [(&str, &[u8]); 2] = [("SECRET", SECRET), ("FILLER", &filler)];
            host.ask(detached.parcel(&token(), &one, &env).unwrap())
                .unwrap_or_else(|e| panic!("{shell}: {number}: {e}"));
            let leads = || std::fs::read(host.home_of(&one).join("leader")).is_ok_and(|text| holds(&text, b"recorded"));
            eventually("it runs", leads);
            for process in session(&host, &one) {
                let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
                assert!(!holds(&line, SECRET), "{shell}: {}", String::from_utf8_lossy(&line));
            }
            host.cancel(&one);
        }
    }
}
