//! The program on real sshd hosts, from its command line to its exit code: what people and machines get to see.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::schema;
use crate::support::fault::{Fault, Faulty};
use crate::support::sshd;
use crate::support::world::{World, json, ndjson, said};

/// Calls the program and checks how it ends.
fn ends(world: &World, code: i32, words: &[&str]) -> std::process::Output {
    let output = world.sshjob(words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
    output
}

/// Two sound hosts tagged `Dev`, and one each that is tagged `Role: refused` and `Role: lost`.
fn troubled() -> (World, [Faulty; 2]) {
    let world = World::new(2);
    let faulty = [Faulty::start(Fault::Refuses), Faulty::start(Fault::ClosesWithoutStatus)];
    world.add("gone", faulty[0].address(), "Role: refused");
    world.add("odd", faulty[1].address(), "Role: lost");
    (world, faulty)
}

const FIRST_FAILS: &str = "echo out; echo err >&2; test $SSHJOB_INSTANCE != host-0";

#[test]
fn run_for_machines_is_a_valid_document_and_so_is_what_is_told_of_it_later() {
    let (world, _faulty) = troubled();
    let words = ["run", "-o", "json", "-x", "odd", "-t", "Environment!=Prod", "--", FIRST_FAILS];
    let run = json(&ends(&world, 1, &words));
    schema::assert_valid("run", &run);
    assert_eq!(run["counts"], json!({"succeeded": 1, "failed": 1, "unreachable": 1}));
    let task = |run: &Value, id: &str| {
        run["tasks"].as_array().unwrap().iter().find(|task| task["instance"] == id).unwrap().clone()
    };
    let failed = task(&run, "host-0");
    assert_eq!((&failed["state"], &failed["exit_code"]), (&json!("failed"), &json!(1)));
    assert_eq!((&failed["stdout"], &failed["stderr"]), (&json!("out\n"), &json!("err\n")));
    assert!(failed["host_key"].as_str().unwrap().starts_with("SHA256:"), "{failed}");
    assert_eq!(task(&run, "gone")["state"], "unreachable");

    let status = json(&ends(&world, 1, &["status", "-o", "json"]));
    schema::assert_valid("run", &status);
    for id in ["host-0", "host-1", "gone"] {
        assert_eq!(task(&status, id), task(&run, id));
    }
    for line in ndjson(&ends(&world, 1, &["status", "-o", "ndjson"])) {
        schema::assert_valid("event", &line);
    }
    let runs = json(&ends(&world, 0, &["runs", "-o", "json"]));
    schema::assert_valid("runs", &runs);
    assert_eq!(runs["runs"][0]["run"], run["run"]);
    schema::assert_valid("output", &json(&ends(&world, 0, &["logs", "-o", "json"])));
    let pieces = ndjson(&ends(&world, 0, &["logs", "-o", "ndjson"]));
    for piece in &pieces {
        schema::assert_valid("piece", piece);
    }
    assert_eq!(pieces.len(), 4);
}

#[test]
fn run_for_machines_tells_every_event_as_one_valid_line() {
    let (world, _faulty) = troubled();
    let words = ["run", "-o", "ndjson", "-x", "odd", "-t", "Environment!=Prod", "--", FIRST_FAILS];
    let events = ndjson(&ends(&world, 1, &words));
    for event in &events {
        schema::assert_valid("event", event);
    }
    let told = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((told("run_started"), told("task_started")), (1, 2));
    assert_eq!((told("task_finished"), told("run_finished")), (3, 1));
    assert_eq!(events.first().unwrap()["event"], "run_started");
    assert_eq!(events.last().unwrap()["event"], "run_finished");
}

#[test]
fn run_that_ends_so_exits_so_and_its_status_too() {
    let (world, _faulty) = troubled();
    let cases: [(i32, &[&str]); 9] = [
        (0, &["-t", "Environment=Dev", "--", "true"]),
        (1, &["-t", "Environment=Dev", "--", FIRST_FAILS]),
        (3, &["-t", "Role=refused", "--", "true"]),
        (5, &["-t", "Environment=Dev", "-f", "1", "--max-errors", "0", "--", "false"]),
        (6, &["-t", "Role=lost", "--", "true"]),
        (124, &["-t", "Environment=Dev", "-l", "1", "--timeout", "1s", "--", "sleep 60"]),
        // Several at once: the first of 130, 7, 5, 1, 124, 6, 3.
        (6, &["-t", "Role", "--", "true"]),
        (1, &["-t", "Environment!=Prod", "--", "false"]),
        (124, &["-t", "Environment!=Prod", "--timeout", "1s", "--", "sleep 60"]),
    ];
    for (code, words) in cases {
        ends(&world, code, &[&["run"], words].concat());
        ends(&world, code, &["status", "last"]);
    }
}

#[test]
fn command_that_cannot_be_done_exits_with_its_cause() {
    let world = World::new(0);
    fs::write(world.path().join("hosts.yaml"), "instances:\n  - { id: a, address: 127.0.0.1, tags: { A: b } }\n")
        .unwrap();
    fs::write(world.path().join("file"), "no folder").unwrap();
    let cases: [(i32, &[&str]); 11] = [
        (2, &["run", "--no-such-flag"]),
        (2, &["run", "no-such-job"]),
        (2, &["run", "-t", "A=b"]),
        (2, &["run", "--", "true"]),
        (2, &["status", "no-such-run"]),
        (4, &["run", "-t", "A=c", "--", "true"]),
        (0, &["run", "-t", "A=c", "--allow-empty", "--", "true"]),
        (4, &["hosts", "-t", "A=c"]),
        // With AWS the region is missing, without it AWS.
        (if cfg!(feature = "aws") { 2 } else { 7 }, &["run", "-t", "A=b", "--store", "s3://bucket", "--", "true"]),
        (7, &["run", "-t", "A=b", "--store", "file", "--", "true"]),
        (7, &["run", "-t", "A=b", "--inventory", "gone.yaml", "--", "true"]),
    ];
    for (code, words) in cases {
        let output = ends(&world, code, words);
        assert!(output.stdout.is_empty(), "{words:?}: {}", said(&output));
        assert_eq!(code == 0, !said(&output).contains("error: "), "{words:?}: {}", said(&output));
    }
    // None of it was a run.
    assert_eq!(json(&ends(&world, 0, &["runs", "-o", "json"]))["runs"], json!([]));
}

#[test]
fn flag_may_not_say_what_a_file_may_not() {
    let world = World::new(0);
    let cases: [(&[&str], &str); 8] = [
        (&["--timeout", "0s"], "must be longer than 0s"),
        (&["--connect-timeout", "0s"], "must be longer than 0s"),
        (&["-f", "0"], "must be at least 1 or 1%, found 0"),
        (&["--user=-oProxyCommand=x"], "is not a user name"),
        (&["--sudo=a b"], "is not a user to become"),
        (&["-e", "A B=c"], "is not the name of a variable"),
        // Two requests whose name was forgotten would be one run.
        (&["--id", ""], "a value is required"),
        (&["--wait", "5m"], "add `-d`"),
    ];
    for (flag, why) in cases {
        let output = ends(&world, 2, &[&["run", "-w", "127.0.0.1"], flag, &["--", "true"]].concat());
        assert!(said(&output).contains(why), "{}", said(&output));
    }
}

#[test]
fn word_that_is_taken_for_something_else_than_was_meant_is_told() {
    let world = World::new(1);
    let select = ["run", "-t", "Environment=Dev"];
    let told = |code, words: &[&str]| {
        let output = ends(&world, code, &[&select, words].concat());
        String::from_utf8(output.stderr).unwrap()
    };
    let no_job = "error: there is no job `uptime` in `jobs`\nhint: `sshjob init` creates a project with a first job; \
                  to run a command, put `--` before it: `-- uptime`\n";
    assert_eq!(told(2, &["uptime"]), no_job);
    let flag = "`--store` stands after `--`, so it goes to `echo`, not to sshjob\n";
    assert!(told(0, &["--", "echo", "--store", "x"]).starts_with(flag));
    assert!(!told(0, &["-q", "--", "echo", "--store", "x"]).contains("stands after"));
    assert!(told(0, &["--", "echo", "a", "|", "b"]).starts_with("`|` reaches `echo` as an argument"));
    for words in [&["--sudo", "nobody"][..], &["--sudo", "nobody", "--", "id"]] {
        assert!(told(2, words).ends_with("to become that user, write `--sudo=nobody`\n"), "{}", told(2, words));
    }
    let check = ends(&world, 2, &["check", "-t", "Environment=Dev", "--sudo", "nobody"]);
    assert!(said(&check).contains("write `--sudo=nobody`"), "{}", said(&check));
    let no_script = "error: cannot read the script `gone.sh`: No such file or directory (os error 2)\n\
                     hint: `--script` names a file as seen from the working directory\n";
    assert_eq!(told(2, &["--script", "gone.sh"]), no_script);
    let listed = [
        ends(&world, 0, &[&select[..], &["--list-hosts"]].concat()),
        ends(&world, 0, &["hosts", "-t", "Environment=Dev"]),
    ];
    assert_eq!(listed[0].stdout, listed[1].stdout);
}

#[test]
fn retry_logs_in_as_its_flags_say() {
    let world = World::new(2);
    let said = said(&ends(&world, 3, &["run", "-u", "nobody-of-that-name", "-t", "Environment=Dev", "--", "true"]));
    assert!(said.contains(" --failed` runs it again where it did not succeed; `-u` and `-i` change how"), "{said}");
    ends(&world, 3, &["retry", "last"]);
    let authority = world.fleet().host_key().to_openssh().unwrap();
    let words = ["retry", "last", "--host-ca", authority.as_str()];
    assert!(self::said(&ends(&world, 2, &words)).contains("nobody would ask them\nhint: add `--host-key ca`"));
    ends(&world, 0, &["retry", "last", "-u", &sshd::user()]);
    let run = json(&ends(&world, 0, &["status", "-o", "json"]));
    assert_eq!(run["counts"], json!({"succeeded": 2}));
    // It is the new run's own: a retry of the retry needs no flag.
    ends(&world, 0, &["retry", "last"]);
}

#[test]
fn demo_succeeds_and_names_nothing_that_is_gone() {
    let world = World::new(0);
    let mut demo = world.command(&["demo"]);
    // What leads to one's own hosts leads no demo there.
    let own =
        [("INVENTORY", "own.yaml"), ("KEY", "/nowhere"), ("USER", "nobody"), ("JUMP", "nowhere"), ("STORE", "own")];
    demo.envs(own.map(|(name, value)| (format!("SSHJOB_{name}"), value)));
    let output = demo.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!world.path().join("own").exists(), "one's own store is left alone");
    let said = said(&output);
    assert!(said.contains(" failed: 5 succeeded, 1 failed, 1 unreachable of 7 hosts in "), "{said}");
    assert!(!said.contains("hint:") && !said.contains("--store"), "{said}");
    assert!(!world.path().join(".local").exists(), "the person's own store is left alone");
}

#[test]
fn fleet_that_a_demo_keeps_is_a_project_until_it_is_interrupted() {
    let world = World::new(0);
    let blank = world.path().join("a blank");
    fs::create_dir(&blank).unwrap();
    let mut demo = world.command(&["demo", "--keep"]);
    let mut demo = demo.env("TMPDIR", &blank).env("SSHJOB_KEY", "/nowhere").spawn().unwrap();
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines().map(Result::unwrap);
    let folder = lines.find_map(|line| Some(line.strip_prefix("  cd '")?.strip_suffix('\'')?.to_owned())).unwrap();
    assert_eq!(lines.next().unwrap(), "  unset SSHJOB_KEY");
    let output = ends(&world, 0, &["-C", &folder, "run", "-t", "Role=db", "--", "echo here"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.ends_with("| here")).count(), 2);
    assert!(!world.path().join(".local").exists(), "the person's own store is left alone");
    kill_process(Pid::from_child(&demo), Signal::TERM).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert!(!Path::new(&folder).exists());
}

#[test]
fn validation_for_machines_is_a_valid_document() {
    let world = World::new(0);
    fs::create_dir(world.path().join("jobs")).unwrap();
    fs::write(world.path().join("jobs/good.yaml"), "targets: { tags: { A: b } }\nrun: uptime\n").unwrap();
    let good = json(&ends(&world, 0, &["validate", "-o", "json"]));
    schema::assert_valid("validate", &good);
    assert_eq!(good, json!({"schema": "sshjob/v1", "jobs": 1, "errors": []}));
    fs::write(world.path().join("jobs/bad.yaml"), "targets: { tags: { A: b } }\nrun: x\nsudoo: true\n").unwrap();
    let bad = ends(&world, 2, &["validate", "-o", "ndjson"]);
    schema::assert_valid("validate", &json(&bad));
    let error = json!({
        "file": "jobs/bad.yaml", "line": 3, "column": 1, "message": "job `bad`: unknown key `sudoo`",
        "hint": "did you mean `sudo`?",
    });
    assert_eq!(json(&bad), json!({"schema": "sshjob/v1", "jobs": 1, "errors": [error]}));
    assert!(bad.stderr.is_empty(), "{}", said(&bad));
}

#[test]
fn verbose_tells_what_is_done_and_no_secret() {
    let world = World::new(1);
    let words = ["run", "-q", "-t", "Environment=Dev", "-e", "TOKEN=hush", "--", "true"];
    assert_eq!(String::from_utf8_lossy(&ends(&world, 0, &words).stderr), "");
    let words: Vec<&str> = words.into_iter().map(|word| if word == "-q" { "-vv" } else { word }).collect();
    let told = said(&ends(&world, 0, &words));
    for what in ["loaded key=", "opened store=", "connected instance=host-0 attempt=1", "state=succeeded"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert!(!told.contains("hush") && !told.contains("PRIVATE KEY"), "{told}");
}

#[test]
fn hosts_by_name_need_neither_inventory_nor_project() {
    let world = World::new(2);
    for file in ["hosts.yaml", "sshjob.yaml"] {
        fs::remove_file(world.path().join(file)).unwrap();
    }
    let hosts: Vec<String> = world.fleet().addresses().iter().map(ToString::to_string).collect();
    let (hosts, key, user) = (hosts.join(","), world.fleet().login().path(), sshd::user());
    let words = ["run", "-o", "json", "-w", &hosts, "-u", &user, "-i", key.to_str().unwrap(), "--", "true"];
    assert_eq!(json(&ends(&world, 0, &words))["counts"], json!({"succeeded": 2}));
}

#[test]
fn strict_runs_only_where_known_hosts_has_the_key() {
    let world = World::new(1);
    let words = ["run", "-o", "json", "--host-key", "strict", "-t", "Environment=Dev", "--", "true"];
    let rejected = json(&ends(&world, 3, &words));
    assert_eq!(rejected["counts"], json!({"host_key_rejected": 1}));
    let address = world.fleet().addresses()[0];
    let key = world.fleet().host_key().to_openssh().unwrap();
    let line = format!("[{}]:{} {key}\n", address.ip(), address.port());
    fs::create_dir(world.path().join(".ssh")).unwrap();
    fs::write(world.path().join(".ssh/known_hosts"), line).unwrap();
    ends(&world, 0, &words);
    assert_eq!(json(&ends(&world, 0, &["trust", "list", "-o", "json"]))["pins"], json!([]));
}

#[test]
fn off_takes_any_key_pins_none_and_is_recorded() {
    let mut world = World::new(1);
    let words = |policy| ["run", "-o", "json", "--host-key", policy, "-t", "Environment=Dev", "--", "true"];
    ends(&world, 0, &words("pinned"));
    let pins = json(&ends(&world, 0, &["trust", "list", "-o", "json"]));
    world.fleet_mut().change_host_keys();
    ends(&world, 3, &words("pinned"));
    let run = json(&ends(&world, 0, &words("off")));
    assert_eq!(json(&ends(&world, 0, &["trust", "list", "-o", "json"])), pins);
    let name = run["run"].as_str().unwrap();
    let record = world.path().join(".local/state/sshjob/runs/adhoc").join(name).join("run.json");
    let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(record["job"]["login"]["host_key"], "off", "{record:#}");
    let status = String::from_utf8(ends(&world, 0, &["status", name]).stdout).unwrap();
    assert!(status.contains("\nhost keys were not checked (`host_key: off`)\n"), "{status}");
}

#[test]
fn output_beyond_its_limit_is_cut_marked_and_counted_in_every_form() {
    let world = World::new(1);
    fs::create_dir(world.path().join("jobs")).unwrap();
    let job = "targets: { tags: { Environment: Dev } }\nmax_output: 1KiB\nrun: head -c 5000 /dev/zero | tr '\\0' x\n";
    fs::write(world.path().join("jobs/loud.yaml"), job).unwrap();
    let run = json(&ends(&world, 0, &["run", "loud", "-o", "json"]));
    let task = &run["tasks"][0];
    assert_eq!((&task["truncated"], &task["stdout_bytes"]), (&json!(true), &json!(5000)));
    assert_eq!(task["stdout"].as_str().unwrap().len(), 1024);
    let raw = ends(&world, 0, &["logs", "--host", "host-0", "--raw"]);
    assert_eq!(raw.stdout, "x".repeat(1024).as_bytes(), "{}", said(&raw));
    let text = ends(&world, 0, &["run", "loud"]);
    let warning =
        "warning: host-0 wrote 5000 bytes to standard output; beyond `max_output` only the first 1KiB are kept\n";
    assert!(said(&text).contains(warning), "{}", said(&text));
    assert_eq!(String::from_utf8_lossy(&ends(&world, 0, &["logs"]).stderr), warning);
    assert_eq!(String::from_utf8_lossy(&ends(&world, 0, &["logs", "-f"]).stderr), warning);
    assert!(said(&ends(&world, 0, &["run", "loud", "--group"])).contains(warning));
}

#[test]
fn identical_output_of_real_hosts_is_shown_once() {
    let world = World::new(3);
    let output = ends(&world, 0, &["run", "--group", "-t", "Environment=Dev", "--", "echo same; echo again"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--- host-[0-2] (3 hosts) ---\nsame\nagain\n");
}

#[test]
fn prune_removes_finished_runs_and_says_which() {
    let world = World::new(1);
    for id in ["one", "two"] {
        ends(&world, 0, &["run", "--id", id, "-t", "Environment=Dev", "--", "echo out"]);
    }
    let again = ends(&world, 0, &["run", "--id", "two", "-t", "Environment=Dev", "--", "echo out"]);
    let told = String::from_utf8_lossy(&again.stderr);
    assert!(told.starts_with("request `two` is run `adhoc-") && told.contains("does not start again\n"), "{told}");
    let names = |list: &Value| -> Vec<String> {
        list["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap().to_owned()).collect()
    };
    let left = || names(&json(&ends(&world, 0, &["runs", "-o", "json"])));
    let dry = json(&ends(&world, 0, &["prune", "--keep", "0", "--dry-run", "-o", "json"]));
    schema::assert_valid("prune", &dry);
    assert_eq!((names(&dry).len(), left().len()), (2, 2));
    let pruned = json(&ends(&world, 0, &["prune", "--keep", "1", "-o", "json"]));
    schema::assert_valid("prune", &pruned);
    let (pruned, left) = (names(&pruned), left());
    assert_eq!((pruned.len(), left.len()), (1, 1));
    ends(&world, 2, &["status", &pruned[0]]);
    ends(&world, 0, &["status", &left[0]]);
}
