//! Hosts with a fault: each is sound up to its fault, and not beyond.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::time::Duration;

use russh::{ChannelMsg, client};
use tokio::time::timeout;

use crate::support::client::{Trusting, greet, log_in};
use crate::support::fault::{Fault, Faulty};
use crate::support::key;

/// How long a hanging host is watched. A slow machine can only make it hang more.
const WATCHED: Duration = Duration::from_millis(200);

async fn logged_in(host: &Faulty) -> client::Handle<Trusting> {
    let (mut session, _) = greet(host.address()).await.unwrap();
    assert!(log_in(&mut session, &key::fresh()).await.unwrap());
    session
}

#[test]
fn refusing_host_refuses() {
    let host = Faulty::start(Fault::Refuses);
    assert_eq!(TcpStream::connect(host.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn dropping_host_answers_nothing() {
    let host = Faulty::start(Fault::Drops);
    for _ in 0..3 {
        let error = TcpStream::connect_timeout(&host.address(), WATCHED).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}

#[test]
fn silent_host_accepts_and_says_nothing() {
    let host = Faulty::start(Fault::Silent);
    let mut stream = TcpStream::connect(host.address()).unwrap();
    stream.set_read_timeout(Some(WATCHED)).unwrap();
    assert_eq!(stream.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn host_that_hangs_in_the_handshake_tells_its_version_only() {
    let host = Faulty::start(Fault::HangsInHandshake);
    let mut stream = TcpStream::connect(host.address()).unwrap();
    let mut version = [0; 21];
    stream.read_exact(&mut version).unwrap();
    assert_eq!(&version, b"SSH-2.0-OpenSSH_9.2\r\n");
    stream.set_read_timeout(Some(WATCHED)).unwrap();
    assert_eq!(stream.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_hangs_in_login_exchanges_keys() {
    let host = Faulty::start(Fault::HangsInLogin);
    let (mut session, seen) = greet(host.address()).await.unwrap();
    assert_eq!(seen.key_data(), host.host_key().key_data());
    timeout(WATCHED, log_in(&mut session, &key::fresh())).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_hangs_after_login_opens_no_channel() {
    let host = Faulty::start(Fault::HangsAfterLogin);
    let session = logged_in(&host).await;
    timeout(WATCHED, session.channel_open_session()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_hangs_before_the_command_opens_a_channel() {
    let host = Faulty::start(Fault::HangsBeforeCommand);
    let session = logged_in(&host).await;
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, "true").await.unwrap();
    timeout(WATCHED, channel.wait()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn rejecting_host_lets_nobody_in() {
    let host = Faulty::start(Fault::RejectsKey);
    let (mut session, _) = greet(host.address()).await.unwrap();
    assert!(!log_in(&mut session, &key::fresh()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_closes_without_status_tells_none() {
    let host = Faulty::start(Fault::ClosesWithoutStatus);
    let session = logged_in(&host).await;
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, "true").await.unwrap();
    let mut messages = Vec::new();
    while let Some(message) = channel.wait().await {
        messages.push(message);
    }
    assert!(
        matches!(
            messages[..],
            [ChannelMsg::Success, ChannelMsg::Eof, ChannelMsg::Close] | [ChannelMsg::Success, ChannelMsg::Eof]
        ),
        "{messages:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_cuts_the_input_runs_the_command_on_exactly_that_much() {
    let host = Faulty::start(Fault::CutsInputAfter(100_001));
    let folder = tempfile::tempdir().unwrap();
    let received = folder.path().join("received");
    let session = logged_in(&host).await;
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, format!("cat > {}", received.display())).await.unwrap();
    // The cut may come before all is sent, or after.
    let _ = channel.data_bytes(vec![b'x'; 200_000]).await;
    while let Some(message) = channel.wait().await {
        assert!(!matches!(message, ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. }), "{message:?}");
    }
    assert!(session.is_closed());
    host.wait_for_commands();
    assert_eq!(std::fs::metadata(received).unwrap().len(), 100_001);
}
