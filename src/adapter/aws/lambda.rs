//! Sends for worker functions: each order is one event.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;

use super::Trouble;
use crate::domain::order::Order;
use crate::port::{DispatchError, Dispatcher};

/// Hands orders to a worker function.
#[derive(Debug, Clone)]
pub struct LambdaDispatcher {
    client: Client,
    function: String,
}

impl LambdaDispatcher {
    /// Sends orders to `function`, a name or an ARN.
    pub fn new(client: Client, function: impl Into<String>) -> Self {
        Self { client, function: function.into() }
    }
}

impl Dispatcher for LambdaDispatcher {
    async fn dispatch(&self, order: Order) -> Result<(), DispatchError> {
        let refuse = |why: String| DispatchError { run: order.run.clone(), batch: order.batch, why };
        let event = serde_json::to_vec(&order).map_err(|error| refuse(error.to_string()))?;
        let request = self.client.invoke().function_name(&self.function).invocation_type(InvocationType::Event);
        let answer = request
            .payload(Blob::new(event))
            .send()
            .await
            .map_err(|error| refuse(Trouble::new(&error, "lambda:InvokeFunction", &self.function).why))?;
        match answer.status_code() {
            202 => Ok(()),
            status => Err(refuse(format!("`lambda:InvokeFunction` on `{}`: status {status}, not 202", self.function))),
        }
    }
}
