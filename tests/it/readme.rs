//! The README is true: its transcripts are what the program says today, its job file is the shipped one, and its
//! shell commands parse.

use std::path::Path;
use std::process::{Command, Stdio};

use sshjob::adapter::fleet::Fleet;

use crate::support::clock;
use crate::support::eventually::eventually;
use crate::support::scheduler::Scheduler;

const README: &str = include_str!("../../README.md");

/// The fenced blocks in `language`.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let blocks: Vec<&str> = README.split(&*fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty(), "the README has {language} blocks");
    blocks
}

/// What differs from one day to the next is made the same; the order in which hosts finish does not count.
fn normal(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(normal_line).filter(|line| !line.is_empty()).collect();
    lines.sort();
    lines
}

fn normal_line(line: &str) -> String {
    let word = |word: &str| {
        // Run ids (their tails are hexadecimal), hashes, ports, times and sizes.
        let bare = word.trim_matches('`');
        let firing =
            bare.rsplit_once('-').is_some_and(|(_, at)| at.len() == 16 && at.contains('T') && at.ends_with('Z'));
        let run = firing || word.contains('T') && word.contains("Z-") && word.len() > 25;
        let hash = word.len() >= 12 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b')' || b == b',');
        if run {
            return "RUN".to_owned();
        }
        if hash {
            return "HASH".to_owned();
        }
        if word.len() == 20 && word.ends_with('Z') && word.contains('T') {
            return "INSTANT".to_owned();
        }
        if word.starts_with("you@") {
            return "you@HOST".to_owned();
        }
        let time = word.starts_with(|c: char| c.is_ascii_digit())
            && word.ends_with('s')
            && word.bytes().all(|b| b.is_ascii_digit() || b".hms".contains(&b));
        if time {
            return "TIME".to_owned();
        }
        if word.len() == 5 && word.bytes().all(|b| b.is_ascii_digit()) {
            return "PORT".to_owned();
        }
        match word.split_once("127.0.0.1:") {
            Some((before, _)) => format!("{before}127.0.0.1:PORT"),
            None => word.to_owned(),
        }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(fleet: &Fleet) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["jobs/hello.yaml", "scripts/hello.sh"] {
            let target = path.join(name);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), target).unwrap();
        }
        std::fs::write(path.join("hosts.yaml"), fleet.inventory_yaml()).unwrap();
        let key = fleet.key_path().display().to_string();
        std::fs::write(path.join("sshjob.yaml"), format!("inventory: {{ file: hosts.yaml }}\nkey: {key}\n")).unwrap();
        Self { folder }
    }

    /// What a person at a terminal would do.
    fn command(&self, line: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_sshjob"));
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{line} 2>&1")]).current_dir(self.folder.path()).env_clear();
        command.envs([("HOME", self.folder.path().as_os_str()), ("PATH", path.as_ref()), ("USER", "you".as_ref())]);
        command
    }

    /// Does it, and returns what they would see.
    fn shell(&self, line: &str) -> String {
        String::from_utf8(self.command(&format!("{{ {line}\n}}")).output().unwrap().stdout).unwrap()
    }

    /// Does what ends only when it is asked to, just before an hour begins that is short, and returns as many lines as are
    /// `expected`.
    fn watch(&self, line: &str, expected: &str) -> String {
        let mut command = self.command(&format!("exec {line}"));
        clock::from(&mut command, "2026-11-23 05:59:58", 6);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut scheduler = Scheduler::start(command);
        let lines = expected.lines().filter(|line| !line.is_empty()).count();
        eventually("as many lines", || scheduler.out().len() >= lines);
        scheduler.terminate();
        scheduler.out().into_iter().take(lines).collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_are_what_the_program_says() {
    let fleet = Fleet::start().await.unwrap();
    let world = World::new(&fleet);
    let mut commands = 0;
    for block in blocks("console") {
        for step in block.split("$ ").skip(1) {
            let (command, expected) = step.split_once('\n').unwrap();
            if let Some(file) = command.strip_prefix("cat ") {
                std::fs::write(world.folder.path().join(file), expected).unwrap();
                continue;
            }
            let said = if command == "sshjob up" { world.watch(command, expected) } else { world.shell(command) };
            assert_eq!(normal(&said), normal(expected), "$ {command}\n{said}");
            commands += 1;
        }
    }
    assert!(commands >= 4, "the README shows {commands} commands");
}

#[test]
fn job_on_the_first_screen_is_the_shipped_one() {
    let shipped = include_str!("../../jobs/hello.yaml");
    let body = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert_eq!(body(blocks("yaml")[0]), body(shipped));
}

#[test]
fn commands_that_are_shown_exist_with_their_flags() {
    let mut seen = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        let Some(words) = line.strip_prefix("sshjob ") else { continue };
        let words = words.split(" #").next().unwrap().replace("--script fix.sh", "--script /dev/null");
        // An unknown command or flag is refused before anything is read; `--help` would hide it.
        let output = Command::new("sh")
            .args(["-c", &format!("exec \"$0\" {words}"), env!("CARGO_BIN_EXE_sshjob")])
            .current_dir("/")
            .env_clear()
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("Usage:"), "{line}\n{said}");
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} commands are shown");
}
