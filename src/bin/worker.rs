//! The worker function: carries out one order, with many hosts at a time.
//!
//! `SSHJOB_STORE` is the place of the store, as `s3://bucket/prefix`. The region is that of the usual variables.

use jiff::Timestamp;
use lambda_runtime::tower::util::MapRequestLayer;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde_json::Value;
use sshjob::adapter::aws;
use sshjob::adapter::aws::keys::S3Keys;
use sshjob::adapter::aws::parameters::SsmParameters;
use sshjob::adapter::aws::s3::S3Store;
use sshjob::engine::clock::Clock;
use sshjob::engine::records::Runs;
use sshjob::functions::environment::setting;
use sshjob::functions::invocation::readable;
use sshjob::functions::log;
use sshjob::functions::refusal::Refusal;
use sshjob::functions::worker::WorkerFunction;

/// Several threads: the handshakes of fifty hosts are work.
#[tokio::main]
async fn main() -> Result<(), Error> {
    log::listen();
    let config = aws::configured().await;
    let client = aws_sdk_s3::Client::new(&config);
    let store = setting("SSHJOB_STORE").ok_or("the variable `SSHJOB_STORE` is not set")?;
    let worker = WorkerFunction {
        runs: Runs::new(S3Store::parse(&store, client.clone())?),
        keys: S3Keys::new(client),
        parameters: SsmParameters::new(aws_sdk_ssm::Client::new(&config)),
        variable: setting,
        clock: Clock::System,
    };
    let worker = &worker;
    let handler = service_fn(|event: LambdaEvent<Value>| async move {
        let deadline = i64::try_from(event.context.deadline).ok();
        let deadline = deadline.and_then(|deadline| Timestamp::from_millisecond(deadline).ok());
        let answer = Box::pin(worker.handle(event.payload, deadline.unwrap_or(Timestamp::MAX))).await;
        answer.inspect_err(log::refusal) as Result<Value, Refusal>
    });
    Box::pin(Runtime::new(handler).layer(MapRequestLayer::new(readable)).run()).await
}
