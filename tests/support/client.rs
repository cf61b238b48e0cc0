//! The plain `ssh` client, and a bare russh one: independent judges of a server.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use russh::client::{AuthResult, Config, Handle, Handler, connect};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};

/// Runs `command` by OpenSSH's client, which is given `input`, knows no host key and asks nothing.
pub(crate) fn ssh(address: SocketAddr, key: &Path, command: &str, input: &[u8]) -> Output {
    ssh_as(&super::sshd::user(), address, key, command, input)
}

/// As [`ssh`], as this user.
pub(crate) fn ssh_as(user: &str, address: SocketAddr, key: &Path, command: &str, input: &[u8]) -> Output {
    let mut child = Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
        .args(["-l", user, "-p", &address.port().to_string(), "-i"])
        .arg(key)
        .args([&address.ip().to_string(), command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`ssh` is installed");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A command that reads no input is allowed to.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

/// What `ssh` said, whole: standard output, standard error, exit status.
pub(crate) fn said(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// A client that remembers the host key and trusts it.
pub(crate) struct Trusting(Arc<std::sync::Mutex<Option<PublicKey>>>);

impl Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = shown {
            *self.0.lock().unwrap() = Some(key.clone());
        }
        Ok(true)
    }
}

/// Connects up to the end of the key exchange, and tells the host key.
pub(crate) async fn greet(address: SocketAddr) -> Result<(Handle<Trusting>, PublicKey), russh::Error> {
    let seen = Arc::default();
    let session = connect(Arc::new(Config::default()), address, Trusting(Arc::clone(&seen))).await?;
    let key = seen.lock().unwrap().clone().expect("a key exchange shows the host key");
    Ok((session, key))
}

/// Logs in, and tells whether the host let us.
pub(crate) async fn log_in(session: &mut Handle<Trusting>, key: &PrivateKey) -> Result<bool, russh::Error> {
    let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
    session.authenticate_publickey(super::sshd::user(), key).await.map(|result| matches!(result, AuthResult::Success))
}
