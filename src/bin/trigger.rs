//! The trigger function: fires what is due and sends for workers.
//!
//! `SSHJOB_STORE` is the place of the store, as `s3://bucket/prefix`; `SSHJOB_WORKER` the name or ARN of the worker
//! function. The region is that of the usual variables.

use jiff::Timestamp;
use lambda_runtime::tower::util::MapRequestLayer;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde_json::Value;
use sshjob::adapter::aws;
use sshjob::adapter::aws::ec2::Ec2Inventory;
use sshjob::adapter::aws::lambda::LambdaDispatcher;
use sshjob::adapter::aws::s3::S3Store;
use sshjob::adapter::aws::sns::SnsTopics;
use sshjob::adapter::notify::{Network, Roots};
use sshjob::engine::clock::Clock;
use sshjob::engine::records::Runs;
use sshjob::functions::environment::{secret, setting};
use sshjob::functions::invocation::readable;
use sshjob::functions::log;
use sshjob::functions::refusal::Refusal;
use sshjob::functions::trigger::Trigger;

/// One thread: it waits for others nearly all of its time, and a second one would only take longer to start.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::listen();
    let config = aws::configured().await;
    let people = Network::new(|reference: &_| secret(reference, setting), Roots::default()).through_proxy();
    let trigger = Trigger {
        runs: Runs::new(S3Store::parse(&required("SSHJOB_STORE")?, aws_sdk_s3::Client::new(&config))?),
        inventory: Ec2Inventory::new(aws_sdk_ec2::Client::new(&config)),
        dispatcher: LambdaDispatcher::new(aws_sdk_lambda::Client::new(&config), required("SSHJOB_WORKER")?),
        notifier: people.publishing(SnsTopics::new(aws_sdk_sns::Client::new(&config))),
        clock: Clock::System,
        deadline: Timestamp::MAX,
    };
    let trigger = &trigger;
    let handler = service_fn(|event: LambdaEvent<Value>| async move {
        let deadline = i64::try_from(event.context.deadline).ok();
        let deadline = deadline.and_then(|deadline| Timestamp::from_millisecond(deadline).ok());
        let trigger = Trigger { deadline: deadline.unwrap_or(Timestamp::MAX), ..trigger.clone() };
        let answer = Box::pin(trigger.handle(event.payload, &event.context.request_id)).await;
        answer.inspect_err(log::refusal) as Result<Value, Refusal>
    });
    Box::pin(Runtime::new(handler).layer(MapRequestLayer::new(readable)).run()).await
}

fn required(name: &str) -> Result<String, String> {
    setting(name).ok_or_else(|| format!("the variable `{name}` is not set"))
}
