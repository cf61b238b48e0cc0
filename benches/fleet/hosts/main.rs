//! Hosts for the benchmark that cost next to nothing, and a line to hosts that makes them far away.
//!
//!     bench-hosts serve PORT HOST_KEY LOGIN_KEY.pub SOCKET
//!     bench-hosts line PORT TO_PORT ROUND_TRIP_MS
//!
//! Every loopback address is a host of its own.

#![allow(clippy::print_stderr, clippy::disallowed_methods, reason = "part of a benchmark, not of the product")]

mod line;
mod serve;
mod work;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[&str]) -> Result<(), Failure> {
    match words {
        ["serve", port, host_key, login, socket] => {
            serve::serve(port.parse()?, Path::new(host_key), Path::new(login), Path::new(socket)).await
        }
        ["line", port, to, round_trip] => {
            line::carry_all(port.parse()?, to.parse()?, Duration::from_millis(round_trip.parse()?)).await
        }
        _ => Err("usage: serve PORT HOST_KEY LOGIN_KEY.pub SOCKET, or line PORT TO_PORT ROUND_TRIP_MS".into()),
    }
}
