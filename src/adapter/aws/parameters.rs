//! Secrets that are parameters of Systems Manager, kept in memory for some minutes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ssm::Client;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Trouble;
use crate::port::{KeyReadError, Parameters};

/// How long a value is kept: whoever changes a secret waits no longer, and a job of a thousand orders asks a few times.
/// There is no asking whether it has changed, as there is of objects in S3.
const KEPT_FOR: Duration = Duration::from_mins(5);

/// How many values are kept at most.
const MAX_KEPT: usize = 256;

/// The longest value; Systems Manager has none above 8 KiB.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// How services say that there is no such parameter, or that its name is none.
const ABSENT: [&str; 3] = ["ParameterNotFound", "ParameterVersionNotFound", "ValidationException"];

/// A value as read.
struct Kept {
    until: Instant,
    value: Zeroizing<String>,
}

/// Reads parameters, decrypted. Clones share what is kept.
#[derive(Clone)]
pub struct SsmParameters {
    client: Client,
    kept: Arc<Mutex<BTreeMap<String, Kept>>>,
}

impl SsmParameters {
    /// Reads with `client`.
    pub fn new(client: Client) -> Self {
        Self { client, kept: Arc::default() }
    }

    fn find(&self, path: &str) -> Option<Zeroizing<String>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // What is too old is wiped, whichever is asked for.
        kept.retain(|_, kept| Instant::now() < kept.until);
        kept.get(path).map(|kept| kept.value.clone())
    }

    fn keep(&self, path: &str, value: Zeroizing<String>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(path.to_owned(), Kept { until: Instant::now() + KEPT_FOR, value });
    }
}

impl Parameters for SsmParameters {
    async fn read_parameter(&self, path: &str) -> Result<Zeroizing<String>, KeyReadError> {
        if let Some(value) = self.find(path) {
            return Ok(value);
        }
        let shown = format!("the parameter `{path}`");
        let answer = self.client.get_parameter().name(path).with_decryption(true).send().await.map_err(|error| {
            let trouble = Trouble::new(&error, "ssm:GetParameter", path);
            if trouble.is_denied() || trouble.is_one_of(&ABSENT) {
                KeyReadError::Refused(format!("{shown} cannot be had: {}", trouble.why))
            } else {
                KeyReadError::Unavailable(format!("{shown} cannot be read: {}", trouble.why))
            }
        })?;
        let value = answer.parameter.and_then(|parameter| parameter.value).map(Zeroizing::new);
        let value = value.ok_or_else(|| KeyReadError::Refused(format!("{shown} has no value")))?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(KeyReadError::Refused(format!("{shown} has more than {MAX_VALUE_BYTES} bytes")));
        }
        self.keep(path, value.clone());
        Ok(value)
    }
}
