//! Functions of Lambda: each order to a worker is one event; people ask the trigger and wait for what it says.

use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;

use serde_json::Value;

use super::{CONNECT, Trouble};
use crate::domain::order::Order;
use crate::port::{DispatchError, Dispatcher};

/// How much is told of what a function says went wrong, in characters.
const MAX_TOLD: usize = 4000;

/// How long people wait for the answer of a function: the template gives the trigger five minutes. All tries together have
/// no more time than one: whoever has waited so long is not to be asked for a second run of it.
const ANSWER: Duration = Duration::from_secs(310);

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

/// Why a function did not do what it was asked to.
#[derive(Debug)]
pub enum Refused {
    /// It cannot be reached, or ended without an answer.
    Unavailable(String),
    /// It says no.
    Answered {
        /// What it calls that.
        kind: String,
        /// What it says.
        why: String,
    },
}

/// Sends `event` to `function` and waits for its answer.
///
/// # Errors
/// [`Refused`]
pub async fn ask(client: &Client, function: &str, event: &Value) -> Result<Value, Refused> {
    let request = client.invoke().function_name(function).invocation_type(InvocationType::RequestResponse);
    let patience = TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(ANSWER).operation_timeout(ANSWER);
    let own = aws_sdk_lambda::config::Builder::new().timeout_config(patience.build());
    let answer = request
        .payload(Blob::new(event.to_string()))
        .customize()
        .config_override(own)
        .send()
        .await
        .map_err(|error| Refused::Unavailable(Trouble::new(&error, "lambda:InvokeFunction", function).why))?;
    let payload = answer.payload().map(AsRef::as_ref).unwrap_or_default();
    let said: Option<Value> = serde_json::from_slice(payload).ok();
    if let Some(fault) = answer.function_error() {
        // It is shown on terminals: what would steer one is left out, and it has an end.
        let plain = |text: &str| text.chars().filter(|c| *c == '\n' || !c.is_control()).take(MAX_TOLD).collect();
        let text = |name: &str| -> Option<String> { said.as_ref()?.get(name)?.as_str().map(plain) };
        let kind = text("errorType").unwrap_or_default();
        return Err(match text("errorMessage") {
            // How the runtime names what ended it: a time-out, a lack of memory.
            Some(why) if kind.starts_with("Runtime.") || kind.starts_with("Sandbox.") || kind.is_empty() => {
                Refused::Unavailable(format!("`{function}` ended: {why}"))
            }
            Some(why) => Refused::Answered { kind, why },
            None => Refused::Unavailable(format!("`{function}` ended without an answer: {fault}")),
        });
    }
    said.ok_or_else(|| Refused::Unavailable(format!("what `{function}` answers is no JSON")))
}
