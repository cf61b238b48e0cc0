//! The trigger function: fires what is due and sends for workers.
//!
//! `SSHJOB_STORE` is the place of the store, as `s3://bucket/prefix`; `SSHJOB_WORKER` the name or ARN of the worker
//! function. The region is that of the usual variables.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use sshjob::adapter::aws;
use sshjob::adapter::aws::ec2::Ec2Inventory;
use sshjob::adapter::aws::lambda::LambdaDispatcher;
use sshjob::adapter::aws::s3::S3Store;
use sshjob::adapter::notify::{Network, Roots};
use sshjob::domain::job::SecretRef;
use sshjob::engine::clock::Clock;
use sshjob::engine::records::Runs;
use sshjob::functions::log;
use sshjob::functions::refusal::Refusal;
use sshjob::functions::trigger::Trigger;
use zeroize::Zeroizing;

/// One thread: it waits for others nearly all of its time, and a second one would only take longer to start.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = aws::configured().await;
    let trigger = Trigger {
        runs: Runs::new(S3Store::parse(&required("SSHJOB_STORE")?, aws_sdk_s3::Client::new(&config))?),
        inventory: Ec2Inventory::new(aws_sdk_ec2::Client::new(&config)),
        dispatcher: LambdaDispatcher::new(aws_sdk_lambda::Client::new(&config), required("SSHJOB_WORKER")?),
        notifier: Network::new(find_secret, Roots::default()).through_proxy(),
        clock: Clock::System,
    };
    let trigger = &trigger;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        let answer = trigger.handle(event.payload, &event.context.request_id).await;
        answer.inspect_err(log::refusal) as Result<Value, Refusal>
    }))
    .await
}

fn required(name: &str) -> Result<String, String> {
    variable(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("the variable `{name}` is not set"))
}

#[expect(clippy::disallowed_methods, reason = "a function is told by its environment, as a program by its flags")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Finds a secret of a notification.
fn find_secret(secret: &SecretRef) -> Result<Zeroizing<String>, String> {
    match secret {
        SecretRef::Env(name) => variable(name)
            .map(Zeroizing::new)
            .ok_or_else(|| format!("`{name}` is not set in the trigger's environment")),
        SecretRef::File(path) => Err(format!("the file `{}`: a function has no files", path.display())),
        SecretRef::Ssm(path) => Err(format!("the parameter `{path}`: not yet in this version")),
    }
}
