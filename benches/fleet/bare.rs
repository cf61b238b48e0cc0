//! The floor of the benchmark: what the SSH library costs where nothing is promised.
//!
//!     bench-bare HOSTS PORT USER KEY HOST_KEY.pub CONCURRENCY [--input FILE] COMMAND…
//!
//! Connects to every address of the file HOSTS, verifies the host key, authenticates, runs the command, counts its
//! output. The algorithms are sshjob's; there are no deadlines, no retries, no records and no output.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "part of a benchmark, not of the product"
)]

use std::borrow::Cow;
use std::process::ExitCode;
use std::sync::Arc;

use russh::client::{self, Config, Handler};
use russh::keys::{
    Algorithm, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_public_key, load_secret_key,
};
use russh::{ChannelMsg, Disconnect, Preferred, cipher, compression, kex, mac};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is the same for all hosts.
struct Plan {
    port: u16,
    user: String,
    key: PrivateKeyWithHashAlg,
    host_key: PublicKey,
    command: String,
    input: Vec<u8>,
    config: Arc<Config>,
}

struct Verifier(Arc<Plan>);

impl Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(presented.public_key().key_data() == self.0.host_key.key_data())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()).await {
        Ok((hosts, bytes)) => {
            println!("{hosts} hosts, {bytes} bytes");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many hosts there were, and how many bytes of output.
async fn run(words: &[String]) -> Result<(usize, usize), Failure> {
    let [hosts, port, user, key, host_key, concurrency, command @ ..] = words else {
        return Err("usage: HOSTS PORT USER KEY HOST_KEY.pub CONCURRENCY [--input FILE] COMMAND…".into());
    };
    let (input, command) = match command {
        [flag, file, rest @ ..] if flag == "--input" => (std::fs::read(file)?, rest),
        rest => (Vec::new(), rest),
    };
    let plan = Arc::new(Plan {
        port: port.parse()?,
        user: user.clone(),
        key: PrivateKeyWithHashAlg::new(Arc::new(load_secret_key(key, None)?), None),
        host_key: load_public_key(host_key)?,
        command: command.join(" "),
        input,
        config: Arc::new(config()),
    });
    let turns = Arc::new(Semaphore::new(concurrency.parse()?));
    let mut visits = JoinSet::new();
    let mut bytes = 0;
    let hosts: Vec<String> = std::fs::read_to_string(hosts)?.lines().map(str::to_owned).collect();
    let count = hosts.len();
    for host in hosts {
        let turn = Arc::clone(&turns).acquire_owned().await?;
        let plan = Arc::clone(&plan);
        visits.spawn(async move {
            let _turn = turn;
            visit(&host, &plan).await.map_err(|error| format!("{host}: {error}"))
        });
        while let Some(ended) = visits.try_join_next() {
            bytes += ended??;
        }
    }
    while let Some(ended) = visits.join_next().await {
        bytes += ended??;
    }
    Ok((count, bytes))
}

fn config() -> Config {
    Config {
        nodelay: true,
        window_size: 512 * 1024,
        channel_buffer_size: 16,
        preferred: Preferred {
            kex: Cow::Borrowed(&[
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::EXTENSION_SUPPORT_AS_CLIENT,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            ]),
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            cipher: Cow::Borrowed(&[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::default()
        },
        ..Config::default()
    }
}

/// Returns how many bytes the command wrote.
async fn visit(host: &str, plan: &Arc<Plan>) -> Result<usize, Failure> {
    let stream = TcpStream::connect((host, plan.port)).await?;
    stream.set_nodelay(true)?;
    let mut session = client::connect_stream(Arc::clone(&plan.config), stream, Verifier(Arc::clone(plan))).await?;
    if !session.authenticate_publickey(&plan.user, plan.key.clone()).await?.success() {
        return Err("the login was refused".into());
    }
    let mut channel = session.channel_open_session().await?;
    channel.exec(true, plan.command.as_bytes()).await?;
    if !plan.input.is_empty() {
        channel.data(plan.input.as_slice()).await?;
        channel.eof().await?;
    }
    let (mut bytes, mut status) = (0, None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => bytes += data.len(),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    session.disconnect(Disconnect::ByApplication, "", "").await?;
    // Its socket is to be closed before the next connection takes its place.
    let _ = session.await;
    match status {
        Some(0) => Ok(bytes),
        other => Err(format!("exit status {other:?}").into()),
    }
}
