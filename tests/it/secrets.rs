//! That no key, passphrase or secret is seen where it does not belong: planted ones are looked for, raw, in base64 and
//! in hexadecimal, in everything that is printed, stored or in a process list while every command runs at `-vvv`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::crowd::{Crowd, token};
use crate::support::fault::{Fault, Faulty};
use crate::support::key;
use crate::support::world::{json, said};

/// What is planted: who it is, and every form in which it may not be seen.
struct Plant {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Plant {
    fn new(name: &'static str, bytes: &[u8]) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let mut forms = vec![bytes.to_vec(), hex(bytes).into_bytes(), hex(bytes).to_uppercase().into_bytes()];
        // Within a longer text in base64 it looks like one of these three.
        forms.extend((0..3).map(|before| base64_within(bytes, before)));
        Self { name, forms }
    }

    /// Where in `text`, which is `what`, it is seen, if it is.
    fn seen(&self, what: &str, text: &[u8]) -> Option<String> {
        // Base64 for URLs has two other characters.
        let plain: Vec<u8> = text
            .iter()
            .map(|byte| {
                if *byte == b'-' {
                    b'+'
                } else if *byte == b'_' {
                    b'/'
                } else {
                    *byte
                }
            })
            .collect();
        let holds = |text: &[u8], form: &[u8]| text.windows(form.len()).any(|window| window == form);
        let form = self.forms.iter().position(|form| holds(text, form) || holds(&plain, form))?;
        Some(format!("{} in form {form} in {what}", self.name))
    }
}

/// The characters that stand for `bytes`, and for nothing else, in the base64 (RFC 4648) of a text in which `before`
/// bytes, modulo 3, come before them.
fn base64_within(bytes: &[u8], before: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<bool> = vec![0; before]
        .iter()
        .chain(bytes)
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
        .collect();
    let whole = bits.chunks_exact(6).map(|six| ALPHABET[six.iter().fold(0, |n, bit| n * 2 + usize::from(*bit))]);
    whole.skip((before * 8).div_ceil(6)).collect()
}

#[test]
fn forms_in_base64_are_the_real_ones() {
    // RFC 4648, section 10: "foobar" is "Zm9vYmFy".
    assert_eq!(base64_within(b"foobar", 0), b"Zm9vYmFy");
    assert_eq!(base64_within(b"obar", 2), b"vYmFy");
    assert_eq!(base64_within(b"oobar", 1), b"9vYmFy");
}

/// Notes the words of every process of this machine, and of the machines on it, until it is told to stop.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Vec<u8>>>,
}

impl Watch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    seen.extend(std::fs::read(entry.path().join("cmdline")));
                }
            }
            seen
        });
        Self { stop, thread }
    }

    fn end(self) -> BTreeSet<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Every file under `folder`, with its content.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap_or_default()));
        }
    }
}

/// Proves that it has the secrets, and looks for them on the host: in files, and in what any user sees of processes.
/// It waits, so that whoever looks at process lists finds it.
const SCRIPT: &str = r#"#!/bin/sh
[ ${#FROM_ENV} = 21 ] && [ ${#FROM_FILE} = 21 ] && echo has them
sleep 0.2
for secret in "$FROM_ENV" "$FROM_FILE"; do
  forms=$(
    printf '%s\n' "$secret"
    printf '%s' "$secret" | base64
    printf 'x%s' "$secret" | base64 | cut -c 3-29
    printf 'xx%s' "$secret" | base64 | cut -c 4-30
  )
  printf '%s\n' "$forms" | grep -rlsF -f - /tmp /var/tmp /dev/shm /home /var/log /run
  printf '%s\n' "$forms" | grep -lsF -f - /proc/[0-9]*/cmdline
done
[ "$SSHJOB_INSTANCE" != fails ]
"#;

/// Every command with every form of output, each with how it ends.
const COMMANDS: [(&[&str], i32); 37] = [
    (&["validate"], 0),
    (&["jobs"], 0),
    (&["config"], 0),
    (&["config", "-o", "json"], 0),
    (&["hosts", "-t", "A"], 0),
    (&["run", "plant", "--dry-run"], 0),
    (&["run", "plant", "--dry-run", "-o", "json"], 0),
    (&["check", "-t", "A", "--sudo"], 1),
    (&["check", "-t", "C", "-o", "json"], 3),
    (&["run", "-d", "plant", "--wait", "1m", "-o", "json"], 1),
    (&["run", "-d", "linger"], 0),
    (&["status", "linger-"], 0),
    (&["status", "linger-", "-o", "ndjson"], 0),
    (&["logs", "linger-"], 0),
    (&["run", "plant"], 1),
    // Of hosts on which detached scripts have ended, and others run.
    (&["run", "plant", "-o", "json"], 1),
    (&["cancel", "linger-", "-o", "json"], 0),
    (&["status", "linger-", "--wait"], 130),
    (&["logs", "linger-", "-f"], 0),
    (&["run", "-d", "plant", "--sudo", "--wait", "1m"], 1),
    (&["logs", "last", "-o", "json"], 0),
    (&["run", "plant", "-o", "ndjson", "--sudo"], 1),
    (&["run", "plant", "--sudo=app", "--group"], 1),
    (&["retry", "last", "--failed"], 1),
    (&["run", "-t", "A", "-e", "OTHER=value", "-o", "json", "--", "id", "-un"], 0),
    (&["run", "-t", "C", "-o", "json", "--", "true"], 3),
    (&["run", "-t", "A", "--timeout", "1s", "--", "sleep 9"], 124),
    (&["runs"], 0),
    (&["status", "last"], 124),
    (&["status", "last", "-o", "json"], 124),
    (&["status", "last", "-o", "ndjson"], 124),
    (&["logs", "last"], 0),
    (&["logs", "last", "-o", "ndjson"], 0),
    (&["trust", "list"], 0),
    (&["prune", "--keep", "1", "--dry-run"], 0),
    (&["run", "nothing"], 2),
    (&["schema"], 0),
];

#[test]
fn planted_secrets_are_seen_nowhere() {
    let users = [("ann", "bash"), ("fails", "dash"), ("asks", "bash")];
    let rules = "ann ALL=(ALL) NOPASSWD: ALL\nfails ALL=(ALL) NOPASSWD: ALL\nasks ALL=(ALL) ALL";
    let Some(crowd) = Crowd::start(&users, rules, |plan| plan.user("app", "/bin/sh", "")) else { return };
    let (world, folder) = (&crowd.world, crowd.world.path());
    let rejects = Faulty::start(Fault::RejectsKey);
    world.add("rejects", rejects.address(), "C: d");

    let [passphrase, from_env, from_file, variable] = [(); 4].map(|()| token());
    let vault = tempfile::tempdir().unwrap();
    let (key_file, secret_file) = (vault.path().join("key"), vault.path().join("secret"));
    let key = world.fleet().login().private();
    key::write(key, &key_file);
    // One round: what makes guessing slow would make the test slow.
    let lock =
        Command::new("ssh-keygen").args(["-q", "-p", "-a", "1", "-N", &passphrase, "-f"]).arg(&key_file).output();
    assert!(lock.unwrap().status.success());
    std::fs::write(&secret_file, format!("{from_file}\n")).unwrap();
    std::fs::write(folder.join("plant.sh"), SCRIPT).unwrap();
    std::fs::create_dir_all(folder.join("jobs")).unwrap();
    let job = format!(
        "targets: {{ tags: {{ A: b }} }}\nscript: plant.sh\nkey: {}\nenv: {{ VARIABLE: {variable} }}\n\
         secrets: {{ FROM_ENV: \"env:PLANTED\", FROM_FILE: \"file:{}\" }}\n",
        key_file.display(),
        secret_file.display()
    );
    std::fs::write(folder.join("jobs/linger.yaml"), job.replace("script: plant.sh", "run: echo begun; sleep 600"))
        .unwrap();
    std::fs::write(folder.join("jobs/plant.yaml"), job).unwrap();
    std::fs::create_dir(folder.join("tmp")).unwrap();
    let locked = std::fs::read_to_string(&key_file).unwrap();
    let plants = [
        Plant::new("the key", &key.key_data().ed25519().unwrap().private.to_bytes()),
        Plant::new("the key's file", locked.lines().nth(2).unwrap().as_bytes()),
        Plant::new("the passphrase", passphrase.as_bytes()),
        Plant::new("the secret of the environment", from_env.as_bytes()),
        Plant::new("the secret of a file", from_file.as_bytes()),
    ];

    let watch = Watch::start();
    let mut found = Vec::new();
    let call = |words: &[&str], passphrase: &str, code: i32, found: &mut Vec<(String, Vec<u8>)>| {
        let mut command = world.command(&[&["-vvv", "--store", "store"], words].concat());
        command.env("PLANTED", &from_env).env("SSHJOB_KEY", &key_file).env("SSHJOB_PASSPHRASE", passphrase);
        let output = command.env("TMPDIR", folder.join("tmp")).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        found.push((format!("the output of {words:?}"), output.stdout.clone()));
        found.push((format!("the errors of {words:?}"), output.stderr.clone()));
        output
    };
    for (words, code) in COMMANDS {
        let output = call(words, &passphrase, code, &mut found);
        if words.contains(&"plant") && words.contains(&"json") && !words.contains(&"--dry-run") {
            for task in json(&output)["tasks"].as_array().unwrap() {
                // It had the secrets, and found them nowhere on its host.
                assert_eq!(task["stdout"], "has them\n", "{task}");
            }
        }
    }
    // One that opens nothing, none at all, and one whose file is gone.
    call(&["run", "plant"], &from_env, 2, &mut found);
    call(&["run", "plant"], "", 2, &mut found);
    std::fs::remove_file(&secret_file).unwrap();
    call(&["run", "plant"], &passphrase, 2, &mut found);

    files(folder, &mut found);
    assert!(found.iter().any(|(name, _)| name.contains("store/runs/plant/")), "the store was looked through");
    let arguments = watch.end();
    let looked_at =
        |word: &str| arguments.iter().any(|line| line.windows(word.len()).any(|found| found == word.as_bytes()));
    assert!(looked_at("plant") && looked_at("sshjob_head") && looked_at("/script"), "processes were looked at");
    let mut seen: Vec<String> = Vec::new();
    for plant in &plants {
        seen.extend(found.iter().filter_map(|(what, text)| plant.seen(what, text)));
        seen.extend(arguments.iter().filter_map(|line| plant.seen("a process list", line)));
    }
    // Configuration may be stored, and yet is nobody's argument.
    let variable = Plant::new("the variable", variable.as_bytes());
    seen.extend(arguments.iter().filter_map(|line| variable.seen("a process list", line)));
    assert_eq!(seen, Vec::<String>::new());
}
