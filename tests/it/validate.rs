//! What `validate` says: each file of `validate/` with everything that is wrong with it, compared whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/validate")
}

/// Runs sshjob in `folder`, with nothing of this process's environment.
fn sshjob(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sshjob")).args(args).current_dir(folder).env_clear().output().unwrap()
}

/// Everything that a command says, for comparison.
fn transcript(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut transcript = format!("exit {}\n", output.status.code().unwrap());
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            transcript.extend(["--- ", name, "\n", &text(bytes)]);
        }
    }
    transcript
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

const GOOD: &str = "targets: { tags: { Environment: Dev } }\nrun: echo hi\n";

#[test]
fn file_with_errors_is_told_all_of_them_at_once() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("validate");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    let mut seen = 0;
    let mut names: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let output = sshjob(&folder(), &["validate", "-C", ".", name]);
        assert_eq!(output.status.code(), Some(2), "{name} is not refused");
        insta::assert_snapshot!(path.file_stem().unwrap().to_str().unwrap(), transcript(&output));
        seen += 1;
    }
    assert!(seen > 30, "only {seen} files seen");
}

#[test]
fn errors_of_all_files_are_told_at_once() {
    let project = tempfile::tempdir().unwrap();
    write(project.path(), "sshjob.yaml", "user: ec2-user\nstor: here\n");
    write(project.path(), "jobs/b.yaml", "name: a\ntargets: { hosts: web-1 }\nrun: echo hi\n");
    write(project.path(), "jobs/a.yaml", GOOD);
    write(project.path(), "jobs/c.yml", "targets: { hosts: web-1 }\n");
    write(project.path(), "jobs/.hidden.yaml", "no");
    write(project.path(), "jobs/notes.txt", "no");
    let output = sshjob(project.path(), &["validate"]);
    assert_eq!(
        transcript(&output),
        "exit 2\n--- stderr\n\
         error: job `a` is defined by `jobs/a.yaml` already\n  --> jobs/b.yaml\n\
         hint: give one of them another `name`\n\n\
         error: job `c`: nothing to run: neither `script` nor `run` is given\n  --> jobs/c.yml:1:1\n\
         hint: add `script: scripts/….sh`, or `run: |` with the text of a script\n\n\
         error: unknown key `stor`\n  --> sshjob.yaml:2:1\nhint: did you mean `store`?\n"
    );
}

#[test]
fn valid_project_is_told_with_the_number_of_its_jobs() {
    let project = tempfile::tempdir().unwrap();
    write(project.path(), "jobs/a.yaml", GOOD);
    assert_eq!(transcript(&sshjob(project.path(), &["validate"])), "exit 0\n--- stdout\n1 job valid\n");
    write(project.path(), "jobs/b.yaml", GOOD);
    assert_eq!(transcript(&sshjob(project.path(), &["validate"])), "exit 0\n--- stdout\n2 jobs valid\n");
    let below = project.path().join("jobs");
    assert_eq!(transcript(&sshjob(&below, &["validate", "a.yaml"])), "exit 0\n--- stdout\n1 job valid\n");
}

#[test]
fn project_without_jobs_is_no_valid_project() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        transcript(&sshjob(empty.path(), &["validate", "-C", "."])),
        "exit 2\n--- stderr\nerror: there are no job files in `jobs`\n\
         hint: `sshjob init` creates a project with a first job\n"
    );
}

#[test]
fn attached_job_that_no_worker_can_finish_is_refused_where_functions_are_configured() {
    let project = tempfile::tempdir().unwrap();
    let job = format!("schedule: \"@daily\"\ntimeout: 20m\n{GOOD}");
    write(project.path(), "jobs/rotate-logs.yaml", &job);
    assert_eq!(transcript(&sshjob(project.path(), &["validate"])), "exit 0\n--- stdout\n1 job valid\n");
    write(project.path(), "sshjob.yaml", "functions: { trigger: sshjob-trigger, worker: sshjob-worker }\n");
    assert_eq!(
        transcript(&sshjob(project.path(), &["validate"])),
        "exit 2\n--- stderr\n\
         error: job `rotate-logs`: attached timeout `20m` exceeds the worker's 14m\n  --> jobs/rotate-logs.yaml:2:10\n\
         hint: set `mode: detached`\n"
    );
    write(project.path(), "jobs/rotate-logs.yaml", format!("{job}mode: detached\n"));
    assert_eq!(transcript(&sshjob(project.path(), &["validate"])), "exit 0\n--- stdout\n1 job valid\n");
}

#[test]
fn project_file_with_errors_is_told_all_of_them() {
    let project = tempfile::tempdir().unwrap();
    write(project.path(), "jobs/a.yaml", GOOD);
    write(
        project.path(),
        "sshjob.yaml",
        "inventory: hosts.yaml\nstore: ftp://x\nfunctions: { trigger: \"a b\" }\nhost_key: of\n\
         address: privat\nregions: []\njobs: all\nhost_ca: [ssh-ed25519 AAAA, \"\"]\n",
    );
    assert_eq!(
        transcript(&sshjob(project.path(), &["validate"])),
        "exit 2\n--- stderr\n\
         error: `inventory`: `ec2` or `{ file: hosts.yaml }` is wanted, found the text `hosts.yaml`\n  \
         --> sshjob.yaml:1:12\nhint: write `inventory: { file: hosts.yaml }`\n\n\
         error: `store`: `ftp://x` is not a store: a directory or `s3://bucket/prefix`\n  --> sshjob.yaml:2:8\n\n\
         error: `functions`: the key `worker` is missing\n  --> sshjob.yaml:3:12\n\
         hint: name the function that connects, as `worker: sshjob-worker`\n\n\
         error: `functions.trigger`: `a b` is not a function's name or ARN\n  --> sshjob.yaml:3:23\n\n\
         error: `host_key`: one of `pinned`, `strict`, `ca`, `off` is wanted, found `of`\n  --> sshjob.yaml:4:11\n\
         hint: did you mean `off`?\n\n\
         error: `address`: one of `private`, `public`, `ipv6`, `dns` is wanted, found `privat`\n  \
         --> sshjob.yaml:5:10\nhint: did you mean `private`?\n\n\
         error: `regions`: the list is empty\n  --> sshjob.yaml:6:10\nhint: name a region, or leave the key out\n\n\
         error: unknown key `jobs`\n  --> sshjob.yaml:7:1\n\
         hint: known keys are `user`, `port`, `key`, `jump`, `sudo`, `mode`, `timeout`, `connect_timeout`, \
         `ok_exit_codes`, `max_output`, `hosts_per_worker`, `timezone`, `jitter`, `overlap`, `missed`, `deadline`, \
         `notify`, `retries`, `rollout`, `regions`, `address`, `host_key`, `host_ca`, `inventory`, `store`, `functions`\n\n\
         error: `host_ca`: `ssh-ed25519 AAAA` is not a public key: length invalid\n  --> sshjob.yaml:8:11\n\n\
         error: `host_ca`: an authority is wanted: a public key as `ssh-ed25519 AAAA…`, or a file of such\n  \
         --> sshjob.yaml:8:29\n"
    );
}

#[test]
fn wrong_environment_variable_is_told_by_its_name() {
    let project = tempfile::tempdir().unwrap();
    write(project.path(), "jobs/a.yaml", GOOD);
    let output = Command::new(env!("CARGO_BIN_EXE_sshjob"))
        .args(["validate"])
        .current_dir(project.path())
        .env_clear()
        .envs([("SSHJOB_PORT", "ssh"), ("SSHJOB_USER", "root"), ("SSHJOB_TIMEOUT", "")])
        .output()
        .unwrap();
    assert_eq!(
        transcript(&output),
        "exit 2\n--- stderr\nerror: `SSHJOB_PORT`: a whole number from 1 to 65535 is wanted, found the text `ssh`\n"
    );
}

#[test]
fn file_that_cannot_be_read_is_named() {
    let project = tempfile::tempdir().unwrap();
    write(project.path(), "jobs/folder.yaml/x", "");
    assert_eq!(
        transcript(&sshjob(project.path(), &["validate", "jobs/folder.yaml", "jobs/none.yaml"])),
        "exit 2\n--- stderr\nerror: the file cannot be read: not a regular file\n  --> jobs/folder.yaml\n\n\
         error: the file cannot be read: No such file or directory (os error 2)\n  --> jobs/none.yaml\n"
    );
    assert_eq!(
        transcript(&sshjob(project.path(), &["validate", "-C", "nowhere"])),
        "exit 2\n--- stderr\nerror: `nowhere` is not a folder\n"
    );
}

#[test]
fn file_that_would_exhaust_memory_is_refused() {
    let project = tempfile::tempdir().unwrap();
    let level = |(new, old): (char, char)| format!("{new}: &{new} [{}]\n", format!("*{old}, ").repeat(8));
    let bomb: String = ('b'..='i').zip('a'..).map(level).collect();
    write(project.path(), "jobs/bomb.yaml", format!("a: &a [x, x, x, x, x, x, x, x]\n{bomb}"));
    write(project.path(), "jobs/deep.yaml", "[".repeat(100_000));
    write(project.path(), "jobs/huge.yaml", vec![b'#'; 2 * 1024 * 1024]);
    assert_eq!(
        transcript(&sshjob(project.path(), &["validate"])),
        "exit 2\n--- stderr\n\
         error: job `bomb`: aliases make the file too large\n  --> jobs/bomb.yaml:6:7\nhint: write the values out\n\n\
         error: job `deep`: not YAML: recursion limit exceeded\n  --> jobs/deep.yaml:1:33\n\
         hint: at most 32 levels may be nested\n\n\
         error: the file is larger than 1024 KiB, the most that is read\n  --> jobs/huge.yaml:1:1\n"
    );
}
