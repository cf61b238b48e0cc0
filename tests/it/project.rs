//! The project's own commands: `schema`, `jobs`, `config`, `init`, `completions`, and the example jobs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sshjob(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sshjob")).args(args).current_dir(folder).env_clear().output().unwrap()
}

/// What a command that succeeds writes.
fn stdout(folder: &Path, args: &[&str]) -> String {
    let output = sshjob(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn example_jobs() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("jobs")).unwrap().map(|entry| entry.unwrap().path());
    let mut jobs: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    jobs.sort();
    jobs
}

/// YAML as the JSON that editors compare with a schema.
fn as_json(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "insta's own switch")]
fn schema_is_the_one_that_is_shipped() {
    let shipped = root().join("jobs/schema.json");
    let schema = stdout(root(), &["schema"]);
    // As insta does, for whoever changes a key: `INSTA_UPDATE=always` writes the file anew.
    if std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        fs::write(&shipped, &schema).unwrap();
    }
    assert_eq!(schema, fs::read_to_string(shipped).unwrap());
}

#[test]
fn example_jobs_are_valid_and_agree_with_the_schema() {
    let schema: Value = serde_json::from_str(&stdout(root(), &["schema"])).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let jobs = example_jobs();
    assert!(jobs.len() >= 5, "only {} examples seen", jobs.len());
    for path in &jobs {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("# yaml-language-server: $schema=schema.json\n"), "{}", path.display());
        let wrong: Vec<_> = schema.iter_errors(&as_json(&text)).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
    }
    assert_eq!(stdout(root(), &["validate"]), format!("{} jobs valid\n", jobs.len()));
}

#[test]
fn schema_refuses_what_the_decoder_refuses() {
    let schema: Value = serde_json::from_str(&stdout(root(), &["schema"])).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let target = "targets: { tags: { Environment: Dev } }\n";
    for bad in [
        "run: a\n",
        target,
        "run: a\ntargets: {}\n",
        "run: a\ntargets: { tags: {} }\n",
        &format!("{target}run: a\nscript: b\n"),
        &format!("{target}run: a\ntiemout: 5m\n"),
        &format!("{target}run: a\ntimeout: soon\n"),
        &format!("{target}run: a\ntimeout:\n"),
        &format!("{target}run: a\nport: 0\n"),
        &format!("{target}run: a\nmode: detatched\n"),
        &format!("{target}run: a\nenv: {{ SSHJOB_X: 1 }}\n"),
        &format!("{target}run: a\nsecrets: {{ X: plain }}\n"),
        &format!("{target}run: a\nname: Big\n"),
    ] {
        assert!(!schema.is_valid(&as_json(bad)), "{bad}");
    }
}

#[test]
fn example_scripts_are_executable_and_pass_shellcheck() {
    let scripts: Vec<_> = fs::read_dir(root().join("scripts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(scripts.len() >= 4, "only {} scripts seen", scripts.len());
    for path in &scripts {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o111, 0o111, "{}", path.display());
    }
    let shell = scripts.iter().filter(|path| path.extension().is_some_and(|extension| extension == "sh"));
    match Command::new("shellcheck").args(shell).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => println!("shellcheck is not here, so the scripts are not checked by it: {error}"),
    }
}

#[test]
fn jobs_are_listed_with_what_they_run_on_and_when() {
    let (mut lines, now) = (Vec::new(), stdout(root(), &["jobs"]));
    let next = now.find("NEXT").unwrap();
    for line in now.lines() {
        // A time of today, which is another one tomorrow; `next` tests them.
        let end = next + "Tue 2026-11-24 03:30 +01:00".len();
        let is_time = line[next..].split(' ').nth(1).is_some_and(|date| date.starts_with("20"));
        lines.push(if is_time { format!("{}{:27}{}", &line[..next], "TIME", &line[end..]) } else { line.to_owned() });
    }
    insta::assert_snapshot!("jobs_text", lines.join("\n"));
    let mut document: Value = serde_json::from_str(&stdout(root(), &["jobs", "-o", "json"])).unwrap();
    for job in document["jobs"].as_array_mut().unwrap() {
        assert_eq!(job["next"].is_null(), job["schedule"].as_array().unwrap().is_empty());
        job["next"].take();
    }
    insta::assert_snapshot!("jobs_json", format!("{document:#}\n"));
    let lines = stdout(root(), &["jobs", "-o", "ndjson"]);
    assert_eq!(lines.lines().count(), example_jobs().len());
}

#[test]
fn jobs_beside_a_broken_one_are_still_listed() {
    let project = tempfile::tempdir().unwrap();
    fs::create_dir(project.path().join("jobs")).unwrap();
    fs::write(project.path().join("jobs/a.yaml"), "targets: { hosts: web-1 }\nrun: echo\n").unwrap();
    fs::write(project.path().join("jobs/b.yaml"), "targets: { hosts: web-1 }\n").unwrap();
    let output = sshjob(project.path(), &["jobs"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "NAME  TARGETS  MODE      NEXT\na     web-1    attached  on demand\n"
    );
    assert!(String::from_utf8(output.stderr).unwrap().contains("jobs/b.yaml:1:1"));
}

#[test]
fn folder_without_jobs_is_told_by_whoever_looks_for_some() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = folder.path().canonicalize().unwrap().join("jobs");
    let expected = format!(
        "there is no job in `{}`\nhint: `sshjob init` creates a project with a first job; `-C DIR` names the folder of another\n",
        jobs.display()
    );
    for command in ["jobs", "next", "up --once --store store"] {
        let words: Vec<_> = command.split(' ').collect();
        let output = sshjob(folder.path(), &words);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len(), told), (Some(0), 0, expected.clone()), "{command}");
        let quiet = sshjob(folder.path(), &[&words[..], &["-q"]].concat());
        assert_eq!((quiet.status.code(), quiet.stderr.len()), (Some(0), 0), "{command}");
    }
}

#[test]
fn config_does_not_tell_the_secret_in_an_address() {
    let project = tempfile::tempdir().unwrap();
    let text = "notify: { on: failure, slack: \"https://hooks.slack.com/services/T0/B0/token\", ping: \"env:PING\" }\n";
    fs::write(project.path().join("sshjob.yaml"), text).unwrap();
    for format in ["text", "json", "ndjson"] {
        let output = sshjob(project.path(), &["config", "-o", format]);
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains("https://hooks.slack.com/…") && shown.contains("env:PING"), "{shown}");
        assert!(!shown.contains("token"), "{shown}");
    }
}

#[test]
fn config_tells_every_value_and_its_source() {
    let project = tempfile::tempdir().unwrap();
    fs::create_dir(project.path().join("jobs")).unwrap();
    fs::write(project.path().join("jobs/a.yaml"), "targets: { hosts: web-1 }\nrun: echo\ntimeout: 9m\n").unwrap();
    let text = "inventory: { file: hosts.yaml }\nkey: [agent, keys/dev]\nuser: { tag: Login, default: root }\n";
    fs::write(project.path().join("sshjob.yaml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sshjob"))
        .args(["config", "a", "--store", "runs"])
        .current_dir(project.path())
        .env_clear()
        .env("SSHJOB_PORT", "2222")
        .output()
        .unwrap();
    insta::assert_snapshot!("config_text", String::from_utf8(output.stdout).unwrap());
    let document: Value = serde_json::from_str(&stdout(project.path(), &["config", "-o", "json"])).unwrap();
    let port = document["settings"].as_array().unwrap().iter().find(|row| row["key"] == "port").unwrap();
    assert_eq!(port["value"], 22);
    assert_eq!(port["source"], "default");
}

#[test]
fn config_of_an_unknown_job_names_the_nearest() {
    let output = sshjob(root(), &["config", "helo"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: there is no job `helo` in `jobs`\nhint: did you mean `hello`?\n"
    );
}

#[test]
fn init_creates_a_valid_project_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hosts.yaml"), "mine").unwrap();
    insta::assert_snapshot!("init", stdout(folder.path(), &["init"]));
    assert_eq!(fs::read_to_string(folder.path().join("hosts.yaml")).unwrap(), "mine");
    assert_eq!(stdout(folder.path(), &["validate"]), "1 job valid\n");
    let again = stdout(folder.path(), &["init"]);
    assert!(!again.contains("created"), "{again}");
    let below = stdout(folder.path(), &["init", "deep/down"]);
    assert!(below.contains("created deep/down/jobs/hello.yaml"), "{below}");
    assert_eq!(stdout(&folder.path().join("deep/down/scripts"), &["validate"]), "1 job valid\n");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(root(), &["completions", shell]).contains("validate"), "{shell}");
    }
}
