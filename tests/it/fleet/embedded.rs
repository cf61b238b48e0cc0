//! The fleet of `sshjob demo`: judged by the plain `ssh` client and by a bare russh one.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use russh::{ChannelMsg, Sig};
use sshjob::adapter::fleet::Fleet;

use crate::detached_run::detached;
use crate::support::client::{greet, log_in, said, ssh};
use crate::support::eventually::eventually;
use crate::support::key::{self, Login};
use crate::support::memory::Memory;
use crate::support::rig;

fn address(fleet: &Fleet, name: &str) -> SocketAddr {
    let instances = fleet.instances();
    let instance = instances.iter().find(|instance| instance.id.as_str() == name).unwrap();
    SocketAddr::new(instance.address(None).unwrap().0.parse().unwrap(), instance.port.unwrap())
}

/// Runs a command by `ssh` while the fleet's servers go on.
async fn run(fleet: &Fleet, name: &str, command: &str, input: Vec<u8>) -> (String, String, Option<i32>) {
    let (address, key, command) = (address(fleet, name), fleet.key_path(), command.to_owned());
    said(&tokio::task::spawn_blocking(move || ssh(address, &key, &command, &input)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn fleet_lists_every_host_in_its_inventory() {
    let fleet = Fleet::start().await.unwrap();
    let line = |name: &str, role: &str, environment: &str| {
        let tags = format!("Environment: {environment}, Name: {name}, Role: {role}");
        format!(
            "  - {{ id: {name}, address: 127.0.0.1, port: {}, tags: {{ {tags} }} }}\n",
            address(&fleet, name).port()
        )
    };
    let expected = [
        "instances:\n".to_owned(),
        line("web-1", "web", "Dev"),
        line("web-2", "web", "Dev"),
        line("web-3", "web", "Dev"),
        line("web-4", "web", "Dev"),
        line("db-1", "db", "Dev"),
        line("cache-1", "cache", "Dev"),
        line("cache-2", "cache", "Dev"),
        line("prod-db-1", "db", "Prod"),
    ];
    assert_eq!(fleet.inventory_yaml(), expected.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn fleet_keeps_its_key_private_and_removes_all_files() {
    let fleet = Fleet::start().await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(fleet.root()), mode(&fleet.key_path())), (0o700, 0o600));
    let root = fleet.root().to_owned();
    drop(fleet);
    assert!(!root.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_script_outlives_its_channel_and_not_its_fleet() {
    let fleet = Fleet::start().await.unwrap();
    let store = Memory::default();
    let job = detached(rig::script("echo $$ >$HOME/pid; exec sleep 600"));
    let login = Login::at(fleet.key_path().to_str().unwrap());
    let request = rig::request(job, &[address(&fleet, "web-1")], "outlives");
    let done = rig::run(&store, request, &login).await.unwrap();
    assert!(done.driven.verdict.is_none());
    let file = fleet.home("web-1").join("pid");
    let pid = || std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
    eventually("it runs", || !pid().is_empty());
    let process = std::path::PathBuf::from(format!("/proc/{}", pid()));
    assert!(process.exists(), "{}", process.display());
    drop(fleet);
    eventually("it has ended", || !process.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_runs_a_command_in_its_own_home() {
    let fleet = Fleet::start().await.unwrap();
    let home = fleet.home("web-2").display().to_string();
    let said = run(&fleet, "web-2", "hostname; pwd; echo \"$HOME\"; cat; echo err >&2; exit 3", b"in\n".to_vec()).await;
    assert_eq!(said, (format!("web-2\n{home}\n{home}\nin\n"), "err\n".into(), Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_name_themselves() {
    let fleet = Fleet::start().await.unwrap();
    let said = run(&fleet, "db-1", "uname -n; hostname; test \"$(uname)\" = \"$(/usr/bin/uname)\"", Vec::new()).await;
    assert_eq!(said, ("db-1\ndb-1\n".into(), String::new(), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_host_fails_the_job_of_the_demo_and_a_sound_one_does_not() {
    let fleet = Fleet::start().await.unwrap();
    let script = include_bytes!("../../../scripts/hello.sh").to_vec();
    let sound = run(&fleet, "web-1", "sh -s you", script.clone()).await;
    assert_eq!(sound, ("Hello from web-1, you\n".into(), String::new(), Some(0)));
    let broken = run(&fleet, "web-4", "sh -s you", script).await;
    assert_eq!(broken, (String::new(), "uname: cannot execute: Input/output error\n".into(), Some(126)));
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_host_refuses() {
    let fleet = Fleet::start().await.unwrap();
    let error = tokio::net::TcpStream::connect(address(&fleet, "cache-2")).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_rejects_another_key() {
    let fleet = Fleet::start().await.unwrap();
    let (mut session, _) = greet(address(&fleet, "db-1")).await.unwrap();
    assert!(!log_in(&mut session, &key::fresh()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_have_keys_of_their_own() {
    let fleet = Fleet::start().await.unwrap();
    let (_, first) = greet(address(&fleet, "web-1")).await.unwrap();
    let (_, second) = greet(address(&fleet, "web-2")).await.unwrap();
    assert_ne!(first.key_data(), second.key_data());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_echoes_more_than_every_buffer_holds() {
    let fleet = Fleet::start().await.unwrap();
    // Both directions at once: a server that waits for its output before it reads on would stand still.
    let input = vec![b'x'; 20_000_000];
    let (stdout, stderr, status) = run(&fleet, "web-1", "cat", input).await;
    assert_eq!((stdout.len(), stderr.as_str(), status), (20_000_000, "", Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_delivers_a_signal_and_tells_of_it() {
    let fleet = Fleet::start().await.unwrap();
    let (mut session, _) = greet(address(&fleet, "web-1")).await.unwrap();
    assert!(log_in(&mut session, fleet.key()).await.unwrap());
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, "echo ready; exec sleep 1000").await.unwrap();
    let mut ended = None;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { .. } => channel.signal(Sig::TERM).await.unwrap(),
            ChannelMsg::ExitSignal { signal_name, .. } => ended = Some(format!("{signal_name:?}")),
            ChannelMsg::ExitStatus { exit_status } => panic!("exit status {exit_status}"),
            _ => {}
        }
    }
    assert_eq!(ended.as_deref(), Some("TERM"));
}

/// Cause: output of more answers than that, of a detached script, was fetched ten at a time, each time with a warning.
#[tokio::test(flavor = "multi_thread")]
async fn host_runs_any_number_of_commands_by_one_connection_of_which_ten_at_a_time() {
    let fleet = Fleet::start().await.unwrap();
    let (mut session, _) = greet(address(&fleet, "web-1")).await.unwrap();
    assert!(log_in(&mut session, fleet.key()).await.unwrap());
    for number in 0..25 {
        let mut channel = session.channel_open_session().await.unwrap_or_else(|error| panic!("{number}: {error}"));
        channel.exec(true, "true").await.unwrap();
        while channel.wait().await.is_some() {}
    }
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(session.channel_open_session().await.unwrap());
    }
    assert!(session.channel_open_session().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_kills_the_whole_group_when_the_connection_drops() {
    let fleet = Fleet::start().await.unwrap();
    let (mut session, _) = greet(address(&fleet, "web-1")).await.unwrap();
    assert!(log_in(&mut session, fleet.key()).await.unwrap());
    let channel = session.channel_open_session().await.unwrap();
    // The pipe's other end is held by both processes: it ends when both are dead.
    let pipe = fleet.root().join("alive");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let command = format!("exec 9>{}; echo ready >&9; sleep 1000 & sleep 1000", pipe.display());
    channel.exec(true, command).await.unwrap();
    let alive = tokio::task::spawn_blocking(move || {
        let mut pipe = std::io::BufReader::new(std::fs::File::open(pipe).unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut pipe, &mut line).unwrap();
        (line, pipe)
    });
    let (line, mut pipe) = alive.await.unwrap();
    assert_eq!(line, "ready\n");
    session.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((channel, session));
    let rest = tokio::task::spawn_blocking(move || std::io::Read::read(&mut pipe, &mut [0; 1]).unwrap());
    assert_eq!(rest.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_tells_the_exit_before_a_background_child_lets_go_of_the_output() {
    let fleet = Fleet::start().await.unwrap();
    let (mut session, _) = greet(address(&fleet, "web-1")).await.unwrap();
    assert!(log_in(&mut session, fleet.key()).await.unwrap());
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, "sleep 1000 & exit 5").await.unwrap();
    loop {
        match channel.wait().await.expect("the exit is told") {
            ChannelMsg::ExitStatus { exit_status } => break assert_eq!(exit_status, 5),
            ChannelMsg::Eof | ChannelMsg::Close => panic!("the output is still held"),
            _ => {}
        }
    }
}
