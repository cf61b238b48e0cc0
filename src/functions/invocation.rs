//! What comes before an event is read: that it is one at all.

use lambda_runtime::LambdaInvocation;
use serde_json::{Value, json};

/// The invocation, with an event that can be read: in place of one that is no JSON, which the runtime would refuse in its own
/// words and past our log, one that we refuse.
pub fn readable(mut invocation: LambdaInvocation) -> LambdaInvocation {
    if let Err(error) = serde_json::from_slice::<Value>(&invocation.body) {
        invocation.body = json!({ "no JSON": error.to_string() }).to_string().into();
    }
    invocation
}
