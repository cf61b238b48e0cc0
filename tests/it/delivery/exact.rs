//! What arrives is what was sent, byte for byte, whatever shells are there.

use std::os::unix::process::ExitStatusExt as _;

use super::*;

const DUMP: &str = "#!/bin/sh\nfor word; do printf '<%s>\\0' \"$word\"; done; printf '%s\\0' \"$GREETING\" >&2; exit 7";

/// Words that some shell somewhere would read as something else.
fn nasty() -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = [
        "",
        "-n",
        "--",
        "-e",
        "a b",
        "it's",
        "''",
        "\"",
        "\\",
        "\\'",
        "$HOME",
        "`id`",
        "$(id)",
        "!",
        "!!",
        "~",
        "*",
        "a\nb",
        "\n",
        "a\n",
        "\t",
        "\r\n",
        ";",
        "&",
        "|",
        "#",
        "%s",
        "{a,b}",
        "ü€😀",
        "\u{1b}[0m",
    ]
    .map(|word| word.as_bytes().to_vec())
    .into();
    words.push((1..=255).collect());
    words.push((1..=255).flat_map(|byte| [byte, b'\'']).collect());
    words.push([b'x', b'\''].repeat(50_000));
    words
}

#[track_caller]
fn assert_exact(host: &Host, who: &str) {
    let words = nasty();
    let greeting: Vec<u8> = words.concat();
    let greeting = &greeting[..100_000];
    let expected: Vec<u8> = words.iter().flat_map(|word| [b"<", &word[..], b">\0"].concat()).collect();
    let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();

    let ended = host.run(&script(DUMP, &args), &[("GREETING", greeting)]);
    assert_eq!(ended.status.code(), Some(7), "{who}: {:?} {}", ended.refusal, String::from_utf8_lossy(&ended.err));
    assert!(ended.out == expected, "{who}: script's arguments");
    assert!(ended.err == [greeting, b"\0"].concat(), "{who}: script's environment");

    let command_line: Vec<&[u8]> = [&b"sh"[..], b"-c", DUMP.as_bytes(), b"sh"].into_iter().chain(args).collect();
    let ended = host.run(&command(&command_line), &[("GREETING", greeting)]);
    assert_eq!(ended.status.code(), Some(7), "{who}: {:?} {}", ended.refusal, String::from_utf8_lossy(&ended.err));
    assert!(ended.out == expected, "{who}: command's arguments");
    assert!(ended.err == [greeting, b"\0"].concat(), "{who}: command's environment");
}

#[test]
fn words_through_every_login_shell_arrive_exactly() {
    let hosts = LOGIN_SHELLS.into_iter().filter_map(|shell| Some((shell, Host::new().login(shell)?)));
    let count = hosts.inspect(|(shell, host)| assert_exact(host, shell)).count();
    assert!(count > 0, "no login shell was tried");
}

#[test]
fn words_through_every_bin_sh_arrive_exactly() {
    let hosts = BIN_SHELLS.into_iter().filter_map(|shell| Some((shell, Host::new().sh(shell)?)));
    let count = hosts.inspect(|(shell, host)| assert_exact(host, shell)).count();
    assert!(count > 0, "no shell was tried");
}

#[test]
fn script_without_interpreter_line_runs_by_sh() {
    let ended = Host::new().run(&script("echo \"$1\"; exit 3", &[b"hi"]), &[]);
    assert_eq!((ended.out, ended.status.code()), (b"hi\n".to_vec(), Some(3)));
}

#[test]
fn script_for_python_runs_by_its_line() {
    if which("python3").is_none() {
        skip::missing("python3");
        return;
    }
    let text = "#!/usr/bin/env python3\nimport sys\nprint(sys.argv[1:], repr(sys.stdin.read()))\nsys.exit(9)";
    let ended = Host::new().run(&script(text, &["a b".as_bytes(), "ü".as_bytes()]), &[("PYTHONUTF8", b"1")]);
    assert_eq!((String::from_utf8(ended.out).unwrap(), ended.status.code()), ("['a b', 'ü'] ''\n".into(), Some(9)));
}

#[test]
fn script_that_waits_for_all_children_finds_none() {
    if which("python3").is_none() {
        skip::missing("python3");
        return;
    }
    // A watchdog that were a child of the script would keep it waiting until the limit.
    let text = "#!/usr/bin/env python3\nimport os\ntry: os.wait()\nexcept ChildProcessError: print('none')";
    assert_eq!(Host::new().run(&script(text, &[]), &[]).out, b"none\n");
}

#[test]
fn interpreter_line_with_an_argument_passes_it_as_one_word() {
    let ended = Host::new().run(&script("#!/bin/sh -eu\necho $-; false; echo not reached", &[]), &[]);
    let flags = String::from_utf8(ended.out).unwrap();
    assert!(flags.contains('e') && flags.contains('u') && !flags.contains("reached"), "{flags}");
    assert_eq!(ended.status.code(), Some(1));
}

#[test]
fn script_of_a_megabyte_arrives_whole() {
    let mut text = b"#!/bin/sh\nsha256sum <\"$0\"\nexit\n".to_vec();
    text.extend((0..1_000_000_u64).map(|n| u8::try_from(n * n % 251).unwrap()));
    let expected = format!("{}  -\n", sshjob::domain::script::sha256_hex(&text));
    assert_eq!(String::from_utf8(Host::new().run(&script(&text, &[]), &[]).out).unwrap(), expected);
}

#[test]
fn script_sees_an_ordinary_process() {
    // End of file on standard input, no stray descriptor, the user's own umask and directory, no variable of ours.
    let look = "cat; umask; pwd; ls /proc/self/fd; env | grep -i sshjob; set -- $(cat /proc/$$/stat); \
                [ \"$1\" = \"$5\" ] && echo leads";
    let host = Host::new();
    let mut plain = Command::new("/bin/sh");
    plain.args(["-c", look]).current_dir(host.dir("home")).stdin(Stdio::null()).process_group(0);
    let plain = plain.env_clear().env("PATH", path()).env("SSHJOB_RUN_ID", "r").output();
    let ended = host.run(&script(look, &[]), &[("SSHJOB_RUN_ID", b"r")]);
    assert_eq!(String::from_utf8(ended.out), String::from_utf8(plain.unwrap().stdout));
}

#[test]
fn exit_codes_are_the_scripts_own() {
    let host = Host::new();
    for code in [0, 1, 2, 64, 125, 126, 127, 128, 130, 137, 143, 254, 255] {
        let ended = host.run(&command(&[b"sh", b"-c", format!("exit {code}").as_bytes()]), &[]);
        assert_eq!((ended.status.code(), ended.started), (Some(code), true));
    }
}

#[test]
fn signals_are_the_scripts_own() {
    let host = Host::new();
    for signal in [1, 6, 9, 11, 15] {
        let ended = host.run(&script(format!("kill -{signal} $$"), &[]), &[]);
        assert_eq!((ended.status.signal(), ended.started), (Some(signal), true));
    }
}

#[test]
fn path_of_the_job_finds_its_programs() {
    let host = Host::new();
    let tool = host.dir("bin").join("sshjob-tool");
    std::fs::write(&tool, "#!/bin/sh\necho found\n").unwrap();
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = host.dir("bin").into_os_string().into_encoded_bytes();
    assert_eq!(host.run(&command(&[b"sshjob-tool"]), &[("PATH", &path)]).out, b"found\n");
    let ended = host.run(&script("#!/usr/bin/env sshjob-tool\n", &[]), &[("PATH", &path), ("IFS", b"st")]);
    assert_eq!(ended.refusal, None);
}
