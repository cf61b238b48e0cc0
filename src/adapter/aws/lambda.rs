//! Sending for workers by Lambda.

use aws_config::SdkConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;

use super::fault::Fault;
use crate::domain::order::Order;
use crate::port::{DispatchError, Dispatcher};

/// Sends orders to the worker function, asynchronously: Lambda queues them, and tries again where a worker fails.
#[derive(Debug, Clone)]
pub struct LambdaDispatcher {
    client: Client,
    worker: String,
}

impl LambdaDispatcher {
    /// Sends to the function `worker`, a name or an ARN.
    pub fn new(configuration: &SdkConfig, worker: impl Into<String>) -> Self {
        Self { client: Client::new(configuration), worker: worker.into() }
    }
}

impl Dispatcher for LambdaDispatcher {
    async fn dispatch(&self, order: Order) -> Result<(), DispatchError> {
        let failed = |why: String| DispatchError { run: order.run.clone(), batch: order.batch, why };
        let payload = serde_json::to_vec(&order).map_err(|error| failed(error.to_string()))?;
        let invoke = self.client.invoke().function_name(&self.worker).invocation_type(InvocationType::Event);
        match invoke.payload(Blob::new(payload)).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let status = error.raw_response().map(|response| response.status().as_u16());
                Err(failed(Fault::new("lambda:InvokeFunction", &self.worker, status, &error).text))
            }
        }
    }
}
