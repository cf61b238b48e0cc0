//! Jump hosts: every hop proves itself and is logged in to; one connection to it carries many targets.

use std::net::SocketAddr;
use std::sync::Arc;

use sshjob::adapter::dir::Dir;
use sshjob::adapter::ssh::Message;
use sshjob::domain::job::{Hop, Job};
use sshjob::domain::quantity::Amount;
use sshjob::domain::run::Pin;
use sshjob::domain::task::TaskState;
use sshjob::engine::access::Seen;
use sshjob::engine::clock::Clock;
use sshjob::engine::records::Runs;
use sshjob::engine::start::start;
use sshjob::port::Store as _;

use crate::support::fault::{Fault, Faulty};
use crate::support::hostile::{Deed, Hostiles};
use crate::support::key::Login;
use crate::support::rig::{self, Done};
use crate::support::sshd::{self, Spec, Sshd, SshdFleet};

fn hop(address: SocketAddr) -> Hop {
    Hop { user: Some(sshd::user()), host: address.ip().to_string(), port: address.port(), keys: Vec::new() }
}

fn through(hops: Vec<Hop>) -> Job {
    let mut job = rig::script("echo hello from $SSHJOB_INSTANCE");
    job.login.jump = hops;
    job.rollout.max_concurrency = Amount::Count(100);
    job
}

async fn run(store: &Dir, job: Job, addresses: &[SocketAddr], login: &Login) -> Done {
    rig::run(store, rig::request(job, addresses, "one"), login).await.unwrap()
}

fn store() -> (tempfile::TempDir, Dir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Dir::open(folder.path().join("store")).unwrap();
    (folder, store)
}

fn logins(bastion: &Sshd) -> usize {
    bastion.log().matches("Accepted publickey").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn route_of_several_hops_checks_and_pins_every_host_on_the_way() {
    let (fleet, (_folder, store)) = (SshdFleet::same(2), store());
    let spec = Spec::accepting(fleet.login().public());
    let (first, second) = (Sshd::start(spec.clone()), Sshd::start(spec));
    let job = through(vec![hop(first.address()), hop(second.address())]);
    let done = run(&store, job, &fleet.addresses(), fleet.login()).await;
    for (host, record, output) in done.tasks() {
        assert_eq!((record.state, output), (TaskState::Succeeded, format!("hello from {host}\n")));
    }
    let mut pinned = Vec::new();
    for key in store.list("trust/", None, 100).await.unwrap() {
        let (pin, _) = Runs::new(store.clone()).read::<Pin>(&key).await.unwrap().unwrap();
        pinned.push(pin.address);
    }
    let mut hosts: Vec<String> = fleet.addresses().iter().map(ToString::to_string).collect();
    hosts.extend([first.address(), second.address()].map(|at| at.to_string()));
    hosts.sort();
    pinned.sort();
    assert_eq!(pinned, hosts);
    assert_eq!((logins(&first), logins(&second)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_targets_share_one_connection_to_a_bastion_that_allows_few() {
    let (fleet, (_folder, store)) = (SshdFleet::same(60), store());
    let mut spec = Spec::accepting(fleet.login().public());
    // Of two at a time that have not logged in the second is refused.
    spec.lines = vec!["MaxStartups 1:100:1".to_owned(), "MaxSessions 1".to_owned()];
    let bastion = Sshd::start(spec);
    let done = run(&store, through(vec![hop(bastion.address())]), &fleet.addresses(), fleet.login()).await;
    let states: Vec<TaskState> = done.tasks().iter().map(|(_, record, _)| record.state).collect();
    assert_eq!(states, [TaskState::Succeeded; 60]);
    assert_eq!(logins(&bastion), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bastion_that_refuses_the_key_is_asked_once() {
    let (fleet, (_folder, store)) = (SshdFleet::same(20), store());
    let bastion = Sshd::start(Spec::accepting(Login::fresh().public()));
    let done = run(&store, through(vec![hop(bastion.address())]), &fleet.addresses(), fleet.login()).await;
    let jump = format!("{}@{}", sshd::user(), bastion.address());
    for (_, record, _) in done.tasks() {
        assert_eq!(record.state, TaskState::AuthFailed);
        let reason = record.reason.unwrap();
        assert!(
            reason.starts_with(&format!("jump host `{jump}`: user `{}`: the host refuses the key", sshd::user())),
            "{reason}"
        );
    }
    assert_eq!(bastion.log().matches("Connection from").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bastion_that_does_not_answer_is_waited_for_once() {
    let (fleet, (_folder, store)) = (SshdFleet::same(20), store());
    let bastion = Faulty::start(Fault::Silent);
    let mut job = through(vec![hop(bastion.address())]);
    job.login.connect_timeout.0 = std::time::Duration::from_secs(1);
    let done = run(&store, job, &fleet.addresses(), fleet.login()).await;
    let jump = format!("{}@{}", sshd::user(), bastion.address());
    for (_, record, _) in done.tasks() {
        let reason = format!("connect: jump host `{jump}`: SSH handshake: no answer within 1s");
        assert_eq!((record.state, record.reason.unwrap()), (TaskState::Unreachable, reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bastion_with_another_key_than_before_is_rejected_and_no_target_is_reached() {
    let (fleet, (_folder, store)) = (SshdFleet::same(1), store());
    let mut bastion = Sshd::start(Spec::accepting(fleet.login().public()));
    let job = through(vec![hop(bastion.address())]);
    run(&store, job.clone(), &fleet.addresses(), fleet.login()).await;
    bastion.restart(|spec| spec.host_key = crate::support::key::fresh());
    let request = rig::request(job, &fleet.addresses(), "two");
    let done = rig::run(&store, request, fleet.login()).await.unwrap();
    let (state, reason) = done.state(fleet.addresses()[0]);
    assert_eq!(state, TaskState::HostKeyRejected);
    let jump = format!("jump host `{}@{}`: the host key is ", sshd::user(), bastion.address());
    let forget = format!("`sshjob trust forget {}`", bastion.address());
    assert!(reason.starts_with(&jump) && reason.ends_with(&forget), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn target_behind_a_bastion_that_cannot_be_reached_says_who_could_not() {
    let (fleet, (_folder, store)) = (SshdFleet::same(1), store());
    let open = Sshd::start(Spec::accepting(fleet.login().public()));
    let mut spec = Spec::accepting(fleet.login().public());
    spec.lines = vec!["AllowTcpForwarding no".to_owned()];
    let closed = Sshd::start(spec);
    let gone = Faulty::start(Fault::Refuses);
    let told = async |bastion: &Sshd, target: SocketAddr, id: &str| {
        let request = rig::request(through(vec![hop(bastion.address())]), &[target], id);
        rig::run(&store, request, fleet.login()).await.unwrap().state(target)
    };
    let reason = "connect: the jump host cannot reach it: ";
    let (state, why) = told(&open, gone.address(), "gone").await;
    assert_eq!(
        (state, why.as_str()),
        (TaskState::Unreachable, &*format!("{reason}no connection (closed port, no route or unknown name)"))
    );
    let (state, why) = told(&closed, fleet.addresses()[0], "closed").await;
    let forbids = format!("{reason}it forbids forwarding (`AllowTcpForwarding` or `PermitOpen` of its sshd)");
    assert_eq!((state, why), (TaskState::Unreachable, forbids));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_is_taken_late_is_whole_and_holds_up_nothing_behind_the_bastion() {
    let (fleet, (_folder, store)) = (SshdFleet::same(20), store());
    let bastion = Sshd::start(Spec::accepting(fleet.login().public()));
    let mut job = through(vec![hop(bastion.address())]);
    job.login.connect_timeout.0 = std::time::Duration::from_secs(20);
    let started =
        start(&Runs::new(store.clone()), rig::request(job.clone(), &[], "one"), Clock::System.now()).await.unwrap();
    let (worker, _events) = rig::worker(&store, &started, &fleet.login().path());
    let connect = async |address: SocketAddr| {
        let target = rig::target(address);
        worker.access.connect(&job, &target, &Seen::default(), &Arc::default()).await
    };
    let (first, others) = fleet.addresses().split_first().map(|(first, others)| (*first, others.to_vec())).unwrap();
    let stalled = connect(first).await.unwrap();
    let mut channel = stalled.open(job.login.connect_timeout.0).await.unwrap();
    channel.input.exec("exec head -c 20000000 /dev/zero").await.unwrap();
    // Once it has begun, all that fits on the way follows, while the others connect.
    let mut taken = loop {
        if let Some(Message::Data(_, bytes)) = channel.output.next().await {
            break bytes.len();
        }
    };
    for address in others {
        let connection = connect(address).await.unwrap();
        connection.open(job.login.connect_timeout.0).await.unwrap();
    }
    // Nothing of it is lost, and it goes on as soon as somebody listens.
    while let Some(message) = channel.output.next().await {
        if let Message::Data(_, bytes) = message {
            taken += bytes.len();
        }
    }
    assert_eq!(taken, 20_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_ask_and_do_not_listen_hold_up_no_other_behind_the_bastion() {
    let (fleet, (_folder, store)) = (SshdFleet::same(20), store());
    let hostile = Hostiles::start(&[Deed::AsksForEver, Deed::OpensChannelsDeaf, Deed::OutputForEver]);
    let bastion = Sshd::start(Spec::accepting(fleet.login().public()));
    let mut job = through(vec![hop(bastion.address())]);
    // The hostile ones are heard to the end of this, and the others wait behind them.
    job.rollout.max_concurrency = Amount::Count(4);
    job.login.connect_timeout.0 = std::time::Duration::from_secs(5);
    job.timeout.0 = std::time::Duration::from_secs(10);
    let addresses = [hostile.addresses(), &fleet.addresses()].concat();
    let done = run(&store, job, &addresses, fleet.login()).await;
    for address in fleet.addresses() {
        assert_eq!(done.state(address), (TaskState::Succeeded, String::new()));
    }
    for address in hostile.addresses() {
        let (state, reason) = done.state(*address);
        assert!(matches!(state, TaskState::Lost | TaskState::TimedOut), "{state}: {reason}");
    }
}
