//! The worker function: what it needs is in its environment, what it does in [`sshjob::functions::worker`].

use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use sshjob::adapter::aws::configuration;
use sshjob::adapter::aws::s3::{S3Keys, S3Store};
use sshjob::engine::clock::Clock;
use sshjob::engine::records::Runs;
use sshjob::functions::environment::{required, setting};
use sshjob::functions::log;
use sshjob::functions::refusal::answer;
use sshjob::functions::worker::WorkerFunction;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let store = required("SSHJOB_STORE")?;
    let configuration = configuration().await;
    let worker = WorkerFunction {
        runs: Runs::new(S3Store::new(&configuration, &store)?),
        keys: S3Keys::new(&configuration),
        variable: setting,
        clock: Clock::System,
    };
    let worker = &worker;
    let handler = service_fn(|event: LambdaEvent<Value>| async move {
        let deadline = i64::try_from(event.context.deadline).ok();
        let deadline = deadline.and_then(|deadline| Timestamp::from_millisecond(deadline).ok()).unwrap_or_default();
        let done = Box::pin(worker.handle(event.payload, deadline)).await;
        done.inspect_err(log::refusal).map_err(answer)
    });
    Box::pin(lambda_runtime::run(handler)).await
}
