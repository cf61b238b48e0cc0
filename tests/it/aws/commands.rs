//! The command line where AWS is: which region it works in, and what it says of a key that it may not read.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::hook::{Answer, Hook, Received};

/// What a command says in `folder`, where everything of AWS is at `hook`.
fn sshjob(folder: &Path, hook: &Hook, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sshjob"));
    command.args(words).current_dir(folder).env_clear().env("HOME", folder).env("AWS_ENDPOINT_URL", hook.url(""));
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "eu-west-1");
    command.env("AWS_EC2_METADATA_DISABLED", "true").output().unwrap()
}

/// Which region of which service each request was signed for.
fn scopes(received: &[Received]) -> Vec<String> {
    let scope = |request: &Received| -> Option<String> {
        let scope = request.header("authorization")?.split_once("Credential=")?.1.split_once(',')?.0;
        Some(scope.split('/').skip(2).take(2).collect::<Vec<_>>().join(" "))
    };
    received.iter().map(|request| scope(request).unwrap_or_default()).collect()
}

/// Cause: `--region` lost against `AWS_REGION`, which many have set for good.
#[test]
fn region_that_a_flag_names_wins_over_the_environment_for_functions_and_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("jobs")).unwrap();
    std::fs::write(folder.path().join("sshjob.yaml"), "store: store\nfunctions: { trigger: t, worker: w }\n").unwrap();
    let hook = Hook::start(Answer::Status("200 OK", "{}".to_owned()));
    for (words, region) in [(&["--region", "us-west-2"][..], "us-west-2"), (&[], "eu-west-1")] {
        let before = hook.received().len();
        sshjob(folder.path(), &hook, &[&["run", "hello", "--via", "lambda"], words].concat());
        assert_eq!(scopes(&hook.received()[before..]), [format!("{region} lambda")]);
    }
    // A bucket says where it is.
    let hook = Hook::start(Answer::Status("403 Forbidden", String::new()));
    sshjob(folder.path(), &hook, &["--region", "us-west-2", "--store", "s3://store", "runs"]);
    assert_eq!(scopes(&hook.received()), ["us-west-2 s3", "us-west-2 s3"]);
    let hook = Hook::start(Answer::Status("403 Forbidden\nx-amz-bucket-region: eu-north-1", String::new()));
    sshjob(folder.path(), &hook, &["--region", "us-west-2", "--store", "s3://store", "runs"]);
    assert_eq!(scopes(&hook.received()), ["us-west-2 s3", "eu-north-1 s3"]);
    let hook = Hook::start(Answer::Status("403 Forbidden", String::new()));
    sshjob(folder.path(), &hook, &["--store", "s3://store", "runs"]);
    assert_eq!(scopes(&hook.received()), ["eu-west-1 s3"]);
}

#[test]
fn key_that_may_not_be_read_here_is_said_to_have_a_stand_in() {
    let folder = tempfile::tempdir().unwrap();
    let denied = "<Error><Code>AccessDenied</Code><Message>explicit deny</Message></Error>";
    let hook = Hook::start(Answer::Status("403 Forbidden", denied.to_owned()));
    let output =
        sshjob(folder.path(), &hook, &["--store", "store", "run", "-w", "h", "-i", "s3://keys/a", "--", "true"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("`s3://keys/a` may not be read: `s3:GetObject` on `arn:aws:s3:::keys/a`: AccessDenied"),
        "{said}"
    );
    assert!(
        said.contains("\nhint: `-i FILE` names a key of your own, and `agent` is one; or allow `s3:GetObject`"),
        "{said}"
    );
}
