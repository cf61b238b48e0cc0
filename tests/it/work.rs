//! Runs on real sshd hosts: each task ends in its own state, and nothing starts twice.

use sshjob::adapter::dir::Dir;
use sshjob::domain::task::TaskState;

use crate::support::rig;
use crate::support::sshd::SshdFleet;

#[tokio::test(flavor = "multi_thread")]
async fn script_on_every_host_succeeds_and_its_output_is_kept() {
    let fleet = SshdFleet::same(5);
    let folder = tempfile::tempdir().unwrap();
    let store = Dir::open(folder.path()).unwrap();
    let job = rig::script("echo hello from $SSHJOB_INSTANCE; echo trouble >&2");
    let done = rig::run(&store, rig::request(job, &fleet.addresses(), "one"), fleet.login()).await.unwrap();
    for (instance, record, output) in done.tasks() {
        assert_eq!((record.state, record.reason), (TaskState::Succeeded, None), "{instance}");
        assert_eq!(output, format!("hello from {instance}\n"));
    }
    assert_eq!(done.driven.verdict.counts.of(TaskState::Succeeded), 5);
}
