//! The trigger function: what it needs is in its environment, what it does in [`sshjob::functions::trigger`].

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use sshjob::adapter::aws::ec2::Ec2Inventory;
use sshjob::adapter::aws::lambda::LambdaDispatcher;
use sshjob::adapter::aws::{configuration, s3::S3Store};
use sshjob::adapter::notify::{Network, Roots};
use sshjob::engine::clock::Clock;
use sshjob::engine::records::Runs;
use sshjob::functions::environment::{required, secret, setting};
use sshjob::functions::log;
use sshjob::functions::refusal::answer;
use sshjob::functions::trigger::Trigger;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (store, worker) = (required("SSHJOB_STORE")?, required("SSHJOB_WORKER")?);
    let configuration = configuration().await;
    let trigger = Trigger {
        runs: Runs::new(S3Store::new(&configuration, &store)?),
        inventory: Ec2Inventory::new(configuration.clone()),
        dispatcher: LambdaDispatcher::new(&configuration, worker),
        notifier: Network::new(|reference: &_| secret(reference, setting), Roots::default()).through_proxy(),
        clock: Clock::System,
    };
    let trigger = &trigger;
    let handler = service_fn(|event: LambdaEvent<Value>| async move {
        let done = Box::pin(trigger.handle(event.payload, &event.context.request_id)).await;
        done.inspect_err(log::refusal).map_err(answer)
    });
    Box::pin(lambda_runtime::run(handler)).await
}
