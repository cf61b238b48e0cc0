//! Private keys in S3, kept in memory for as long as their objects do not change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::Client;
use zeroize::Zeroizing;

use super::{OPERATION, Trouble};
use crate::domain::diagnostic::chain;
use crate::port::{KeyReadError, Keys};

/// The largest file that is taken for a private key.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// How many keys are kept at most.
const MAX_KEPT: usize = 256;

/// A key as read, and the entity tag of its object.
#[derive(Clone)]
struct Kept {
    tag: String,
    bytes: Zeroizing<Vec<u8>>,
}

/// Reads private keys from buckets. Clones share what is kept.
#[derive(Clone)]
pub struct S3Keys {
    client: Client,
    kept: Arc<Mutex<BTreeMap<(String, String), Kept>>>,
}

impl S3Keys {
    /// Reads with `client`.
    pub fn new(client: Client) -> Self {
        Self { client, kept: Arc::default() }
    }

    fn find(&self, bucket: &str, key: &str) -> Option<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&(bucket.to_owned(), key.to_owned())).cloned()
    }

    fn keep(&self, bucket: &str, key: &str, found: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert((bucket.to_owned(), key.to_owned()), found);
    }
}

impl Keys for S3Keys {
    async fn read_key(&self, bucket: &str, key: &str) -> Result<Zeroizing<Vec<u8>>, KeyReadError> {
        let kept = self.find(bucket, key);
        let tag = kept.as_ref().map(|kept| kept.tag.clone());
        let request = self.client.get_object().bucket(bucket).key(key).set_if_none_match(tag);
        let shown = format!("the private key `s3://{bucket}/{key}`");
        let mut output = match request.send().await {
            Ok(output) => output,
            Err(error) => {
                let trouble = Trouble::new(&error, "s3:GetObject", &format!("arn:aws:s3:::{bucket}/{key}"));
                return match (trouble.status, kept) {
                    (Some(304), Some(kept)) => Ok(kept.bytes),
                    (Some(404), _) => Err(KeyReadError::Refused(format!("{shown} does not exist: {}", trouble.why))),
                    _ if trouble.is_denied() => {
                        Err(KeyReadError::Refused(format!("{shown} may not be read: {}", trouble.why)))
                    }
                    _ => Err(KeyReadError::Unavailable(format!("{shown} cannot be read: {}", trouble.why))),
                };
            }
        };
        let reading = async {
            // Never moved as it grows: what is left behind would not be wiped.
            let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_BYTES));
            while let Some(piece) = output
                .body
                .try_next()
                .await
                .map_err(|error| KeyReadError::Unavailable(format!("{shown} cannot be read: {}", chain(&error))))?
            {
                if bytes.len() + piece.len() > MAX_KEY_BYTES {
                    let why = format!("{shown} has more than {MAX_KEY_BYTES} bytes: that is no key");
                    return Err(KeyReadError::Refused(why));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        };
        let late = |_| KeyReadError::Unavailable(format!("{shown} did not arrive within {} s", OPERATION.as_secs()));
        let bytes = tokio::time::timeout(OPERATION, reading).await.map_err(late)??;
        if let Some(tag) = output.e_tag {
            self.keep(bucket, key, Kept { tag, bytes: bytes.clone() });
        }
        Ok(bytes)
    }
}
