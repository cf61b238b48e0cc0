//! The store in an S3 bucket, and private keys in another.
//!
//! Conditional writes are tried by us, not by the SDK: a try whose answer is lost may have written, and the next one then
//! finds an object in its way. Only who knows that there was such a try may take that object for its own.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use zeroize::Zeroizing;

use super::fault::Fault;
use crate::domain::layout::Key;
use crate::port::{KeyReadError, Keys, Object, Store, StoreError, Version, Written};

/// The largest object that is read, in bytes: far larger than any that is written.
const MAX_OBJECT_BYTES: i64 = 64 << 20;

/// The largest private key, in bytes.
const MAX_KEY_BYTES: i64 = 64 * 1024;

/// How many names are asked for at a time; what S3 gives at most.
const PAGE: usize = 1000;

/// The pauses between the tries of a conditional write.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
];

/// A store in a bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    /// Reads, and writes without conditions: the SDK tries again.
    client: Client,
    /// Conditional writes.
    once: Client,
    bucket: String,
    /// Empty, or with its final `/`.
    prefix: String,
}

/// Why a text names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no store in S3; `s3://bucket` or `s3://bucket/prefix` is")]
pub struct InvalidStore(String);

/// The condition of a write.
#[derive(Debug, Clone, Copy)]
enum Condition<'a> {
    /// There is no such object.
    Absent,
    /// It has this version.
    Is(&'a Version),
}

impl S3Store {
    /// The store that `place` names: `s3://bucket` or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// That it names none.
    pub fn new(configuration: &SdkConfig, place: &str) -> Result<Self, InvalidStore> {
        let invalid = || InvalidStore(place.to_owned());
        let rest = place.strip_prefix("s3://").ok_or_else(invalid)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() || (!prefix.is_empty() && Key::parse(prefix).is_none()) {
            return Err(invalid());
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let once = aws_sdk_s3::config::Builder::from(configuration).retry_config(RetryConfig::disabled()).build();
        let (client, once) = (Client::new(configuration), Client::from_conf(once));
        Ok(Self { client, once, bucket: bucket.to_owned(), prefix })
    }

    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    fn fault<E>(&self, action: &str, name: &str, error: &SdkError<E>) -> Fault
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        Fault::new(action, &format!("arn:aws:s3:::{}/{name}", self.bucket), status, error)
    }

    async fn write(&self, key: &Key, condition: Condition<'_>, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let name = self.name(key);
        let mut may_be_written = false;
        let mut pauses = PAUSES.into_iter();
        loop {
            let request = self
                .once
                .put_object()
                .bucket(&self.bucket)
                .key(&name)
                .server_side_encryption(ServerSideEncryption::Aes256)
                .body(ByteStream::from(bytes.clone()));
            let request = match condition {
                Condition::Absent => request.if_none_match("*"),
                Condition::Is(version) => request.if_match(&version.0),
            };
            let error = match request.send().await {
                Ok(done) => return Ok(Written::Done(Version(done.e_tag.unwrap_or_default()))),
                Err(error) => self.fault("s3:PutObject", &name, &error),
            };
            match error.status {
                // It is not as expected: because of others or, where the answer to an earlier try was lost, of us.
                Some(412 | 404) => {
                    return match self.get(key).await? {
                        Some(found) if may_be_written && found.bytes == bytes => Ok(Written::Done(found.version)),
                        None if error.code.as_deref() == Some("NoSuchBucket") => {
                            Err(unavailable("write", key, error.text))
                        }
                        _ => Ok(Written::Conflict),
                    };
                }
                // Another write of it was under way: nobody can tell yet who comes first.
                Some(409) => {}
                _ if error.is_refusal() => return Err(unavailable("write", key, error.text)),
                _ => may_be_written = true,
            }
            let Some(pause) = pauses.next() else { return Err(unavailable("write", key, error.text)) };
            tokio::time::sleep(pause).await;
        }
    }
}

fn unavailable(action: &'static str, key: &Key, why: String) -> StoreError {
    StoreError::Unavailable { action, at: key.to_string(), source: io::Error::other(why) }
}

impl Store for S3Store {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let name = self.name(key);
        let found = match self.client.get_object().bucket(&self.bucket).key(&name).send().await {
            Ok(found) => found,
            Err(error) => {
                let fault = self.fault("s3:GetObject", &name, &error);
                if fault.code.as_deref() == Some("NoSuchKey") {
                    return Ok(None);
                }
                return Err(unavailable("read", key, fault.text));
            }
        };
        let size = found.content_length.unwrap_or_default();
        if size > MAX_OBJECT_BYTES {
            let why = format!("it has {size} bytes; at most {MAX_OBJECT_BYTES} are read");
            return Err(StoreError::Damaged { at: key.to_string(), why });
        }
        let version = Version(found.e_tag.unwrap_or_default());
        let body = found.body.collect().await.map_err(|error| unavailable("read", key, error.to_string()))?;
        Ok(Some(Object { bytes: body.to_vec(), version }))
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.write(key, Condition::Absent, bytes).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.write(key, Condition::Is(expected), bytes).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let full = format!("{}{prefix}", self.prefix);
        let mut last = after.map(|key| self.name(key));
        let mut keys = Vec::new();
        loop {
            let wanted = limit.saturating_sub(keys.len()).min(PAGE);
            if wanted == 0 {
                return Ok(keys);
            }
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&full);
            let request = request.max_keys(i32::try_from(wanted).unwrap_or(i32::MAX)).set_start_after(last.clone());
            let page = request.send().await.map_err(|error| {
                let status = error.raw_response().map(|response| response.status().as_u16());
                let fault = Fault::new("s3:ListBucket", &format!("arn:aws:s3:::{}", self.bucket), status, &error);
                let source = io::Error::other(fault.text);
                StoreError::Unavailable { action: "list", at: prefix.to_owned(), source }
            })?;
            let names: Vec<String> = page.contents.unwrap_or_default().into_iter().filter_map(|it| it.key).collect();
            let Some(end) = names.last().cloned() else { return Ok(keys) };
            keys.extend(names.iter().filter_map(|name| Key::parse(name.strip_prefix(&self.prefix)?)));
            if page.is_truncated != Some(true) {
                return Ok(keys);
            }
            last = Some(end);
        }
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let name = self.name(key);
        let removed = self.client.delete_object().bucket(&self.bucket).key(&name).send().await;
        let fault = |error| self.fault("s3:DeleteObject", &name, &error);
        removed.map(drop).map_err(|error| unavailable("remove", key, fault(error).text))
    }
}

/// Private keys in buckets, each kept in memory for as long as its object stays the same.
#[derive(Debug)]
pub struct S3Keys {
    client: Client,
    known: Mutex<HashMap<(String, String), Kept>>,
}

/// A private key, and the entity tag that it was read with.
#[derive(Clone)]
struct Kept {
    tag: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl S3Keys {
    /// No keys yet.
    pub fn new(configuration: &SdkConfig) -> Self {
        Self { client: Client::new(configuration), known: Mutex::default() }
    }
}

impl Keys for S3Keys {
    async fn read_key(&self, bucket: &str, key: &str) -> Result<Zeroizing<Vec<u8>>, KeyReadError> {
        let place = (bucket.to_owned(), key.to_owned());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        let tag = known.as_ref().map(|kept| kept.tag.clone());
        let asked = self.client.get_object().bucket(bucket).key(key).set_if_none_match(tag).send().await;
        let found = match (asked, known) {
            (Ok(found), _) => found,
            (Err(error), Some(kept)) if error.raw_response().is_some_and(|it| it.status().as_u16() == 304) => {
                return Ok(kept.bytes);
            }
            (Err(error), _) => {
                let status = error.raw_response().map(|response| response.status().as_u16());
                let fault = Fault::new("s3:GetObject", &format!("arn:aws:s3:::{bucket}/{key}"), status, &error);
                let text = format!("the key `s3://{bucket}/{key}` cannot be read: {}", fault.text);
                return Err(if fault.is_refusal() {
                    KeyReadError::Refused(text)
                } else {
                    KeyReadError::Unavailable(text)
                });
            }
        };
        let size = found.content_length.unwrap_or_default();
        if size > MAX_KEY_BYTES {
            let text =
                format!("`s3://{bucket}/{key}` has {size} bytes and is no key; at most {MAX_KEY_BYTES} are allowed");
            return Err(KeyReadError::Refused(text));
        }
        let tag = found.e_tag.clone().unwrap_or_default();
        let body = found.body.collect().await;
        let body = body.map_err(|error| KeyReadError::Unavailable(format!("`s3://{bucket}/{key}`: {error}")))?;
        let bytes = Zeroizing::new(body.to_vec());
        let kept = Kept { tag, bytes: bytes.clone() };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(place, kept);
        Ok(bytes)
    }
}
