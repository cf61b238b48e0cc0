//! The store in S3: objects below a prefix of a bucket.
//!
//! A write carries a random mark. Where it is unclear what became of it (no answer, or the answer to a second try) the
//! object is read back: it holds our mark, and then it was written by us; or it does not, and somebody else was faster.

use std::io;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;

use super::{OPERATION, Trouble};
use crate::domain::diagnostic::chain;
use crate::domain::layout::Key;
use crate::port::{Object, Store, StoreError, Version, Written, too_large};

/// The largest object that is read; nothing that is written comes near it.
const MAX_OBJECT_BYTES: usize = 64 * 1024 * 1024;

/// How many keys S3 lists at a time.
const PAGE: usize = 1000;

/// How many pages one list takes at most.
const MAX_PAGES: usize = 10_000;

/// The name under which an object carries the mark of the write that made it.
const MARK: &str = "write";

/// How often a write is tried again that S3 refused because another was under way, and how long is waited before.
const CLASHES: u32 = 8;
const CLASH_PAUSE: Duration = Duration::from_millis(50);

/// A store below a prefix of a bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Empty, or with a `/` at its end.
    prefix: String,
}

impl S3Store {
    /// The store at `place`, as `s3://bucket` or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// What is wrong with `place`.
    pub fn parse(place: &str, client: Client) -> Result<Self, String> {
        let refuse = |why: &str| {
            let place: String = place.chars().filter(|c| !c.is_control()).take(200).collect();
            format!("`{place}` is no store in S3: {why}\nhint: write `s3://bucket/prefix`")
        };
        let rest = place.strip_prefix("s3://").ok_or_else(|| refuse("it does not begin with `s3://`"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_name) {
            return Err(refuse("the name of a bucket has 3 to 63 of `a-z`, `0-9`, `-` and `.`"));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let prefix = match prefix {
            "" => String::new(),
            prefix if prefix.len() <= 256 && Key::parse(prefix).is_some() => format!("{prefix}/"),
            _ => return Err(refuse("its prefix has an empty segment, or characters other than `A-Za-z0-9-_.:%@+=,`")),
        };
        Ok(Self { client, bucket: bucket.to_owned(), prefix })
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The same store, reached by another client.
    #[must_use]
    pub fn by(self, client: Client) -> Self {
        Self { client, ..self }
    }

    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    fn unavailable(&self, action: &'static str, name: &str, why: impl Into<String>) -> StoreError {
        let at = format!("s3://{}/{name}", self.bucket);
        StoreError::Unavailable { action, at, source: io::Error::other(why.into()) }
    }

    fn arn(&self, name: &str) -> String {
        format!("arn:aws:s3:::{}/{name}", self.bucket)
    }

    /// Writes an object under the condition that `conditioned` adds.
    async fn put(
        &self,
        action: &'static str,
        key: &Key,
        bytes: Vec<u8>,
        conditioned: impl Fn(PutObjectFluentBuilder) -> PutObjectFluentBuilder + Send + Sync,
    ) -> Result<Written, StoreError> {
        let name = self.name(key);
        let mark = mark().map_err(|error| self.unavailable(action, &name, error.to_string()))?;
        for clash in 1.. {
            let request = self.client.put_object().bucket(&self.bucket).key(&name);
            // How it is encrypted the bucket says, which always does: by S3's own key, or by one of KMS.
            let request = conditioned(request).metadata(MARK, &mark).body(ByteStream::from(bytes.clone()));
            let error = match request.send().await {
                Ok(output) => return self.version(action, &name, output.e_tag()).map(Written::Done),
                Err(error) => Trouble::new(&error, "s3:PutObject", &self.arn(&name)),
            };
            let is_gone = error.status == Some(404) && !error.is_one_of(&["NoSuchBucket"]);
            let is_refused = matches!(error.status, Some(409 | 412));
            if !is_gone && !is_refused && !error.is_ambiguous() {
                return Err(self.unavailable(action, &name, error.why));
            }
            match self.marked(action, &name).await? {
                Some((version, found)) if found == mark => return Ok(Written::Done(version)),
                // Another write was under way, and may have come to nothing.
                _ if error.status == Some(409) && clash < CLASHES => tokio::time::sleep(CLASH_PAUSE * clash).await,
                _ if is_gone || error.status == Some(412) => return Ok(Written::Conflict),
                _ => return Err(self.unavailable(action, &name, error.why)),
            }
        }
        Ok(Written::Conflict)
    }

    /// The version of an object, and the mark of the write that made it.
    async fn marked(&self, action: &'static str, name: &str) -> Result<Option<(Version, String)>, StoreError> {
        match self.client.head_object().bucket(&self.bucket).key(name).send().await {
            Ok(output) => {
                let version = self.version(action, name, output.e_tag())?;
                let mark = output.metadata().and_then(|all| all.get(MARK)).cloned();
                Ok(Some((version, mark.unwrap_or_default())))
            }
            Err(error) => {
                let trouble = Trouble::new(&error, "s3:GetObject", &self.arn(name));
                if trouble.status == Some(404) { Ok(None) } else { Err(self.unavailable(action, name, trouble.why)) }
            }
        }
    }

    fn version(&self, action: &'static str, name: &str, tag: Option<&str>) -> Result<Version, StoreError> {
        let tag = tag.ok_or_else(|| self.unavailable(action, name, "the answer has no ETag"))?;
        Ok(Version(tag.to_owned()))
    }

    /// Reads an object that has at most `most` bytes; more of it is not even fetched.
    async fn read(&self, key: &Key, most: usize) -> Result<Option<Object>, StoreError> {
        let name = self.name(key);
        let refuse = |why: String| self.unavailable("read", &name, why);
        let mut output = match self.client.get_object().bucket(&self.bucket).key(&name).send().await {
            Ok(output) => output,
            Err(error) => {
                let trouble = Trouble::new(&error, "s3:GetObject", &self.arn(&name));
                let is_absent = trouble.status == Some(404) && !trouble.is_one_of(&["NoSuchBucket"]);
                return if is_absent { Ok(None) } else { Err(refuse(trouble.why)) };
            }
        };
        let version = self.version("read", &name, output.e_tag())?;
        let is_too_large = |length: usize| length > most;
        if output.content_length().and_then(|length| usize::try_from(length).ok()).is_some_and(is_too_large) {
            return Err(too_large(key, most));
        }
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(piece) = output.body.try_next().await.map_err(|error| refuse(chain(&error)))? {
                if is_too_large(bytes.len() + piece.len()) {
                    return Err(too_large(key, most));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        };
        match tokio::time::timeout(OPERATION, reading).await {
            Ok(read) => Ok(Some(Object { bytes: read?, version })),
            Err(_) => Err(refuse(format!("its content did not arrive within {} s", OPERATION.as_secs()))),
        }
    }
}

/// In which region `bucket` is, as whoever answers for S3 says, whether we may see it or not.
pub async fn region_of(client: &Client, bucket: &str) -> Option<String> {
    // It is asked before what matters: where nobody answers, that says so.
    let own = aws_sdk_s3::config::Builder::new().retry_config(RetryConfig::disabled());
    match client.head_bucket().bucket(bucket).customize().config_override(own).send().await {
        Ok(output) => output.bucket_region().map(str::to_owned),
        Err(error) => error.raw_response()?.headers().get("x-amz-bucket-region").map(str::to_owned),
    }
}

impl Store for S3Store {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.read(key, MAX_OBJECT_BYTES).await
    }

    async fn get_at_most(&self, key: &Key, most: usize) -> Result<Option<Object>, StoreError> {
        self.read(key, most.min(MAX_OBJECT_BYTES)).await
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.put("create", key, bytes, |request| request.if_none_match("*")).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.put("replace", key, bytes, |request| request.if_match(&expected.0)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        // No key has another character; some of them could not even be asked for.
        if !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Vec::new());
        }
        let start = format!("{}{prefix}", self.prefix);
        let refuse = |why: String| self.unavailable("list", &start, why);
        let mut after = after.map(|key| self.name(key));
        let mut keys = Vec::new();
        for _ in 0..MAX_PAGES {
            let wanted = limit.saturating_sub(keys.len()).min(PAGE);
            if wanted == 0 {
                return Ok(keys);
            }
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&start);
            let request = request.set_start_after(after.clone()).max_keys(i32::try_from(wanted).unwrap_or(i32::MAX));
            let page = request.send().await.map_err(|error| {
                let bucket = format!("arn:aws:s3:::{}", self.bucket);
                refuse(Trouble::new(&error, "s3:ListBucket", &bucket).why)
            })?;
            let names = || page.contents().iter().filter_map(|object| object.key());
            keys.extend(names().filter_map(|name| Key::parse(name.strip_prefix(&self.prefix)?)));
            let last = names().next_back().map(str::to_owned);
            if page.is_truncated() != Some(true) {
                return Ok(keys);
            }
            if last.is_none() || last <= after {
                return Err(refuse("the list does not go on".to_owned()));
            }
            after = last;
        }
        Err(refuse(format!("the list has more than {MAX_PAGES} pages")))
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let name = self.name(key);
        match self.client.delete_object().bucket(&self.bucket).key(&name).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let trouble = Trouble::new(&error, "s3:DeleteObject", &self.arn(&name));
                let is_absent = trouble.status == Some(404) && !trouble.is_one_of(&["NoSuchBucket"]);
                if is_absent { Ok(()) } else { Err(self.unavailable("remove", &name, trouble.why)) }
            }
        }
    }
}

/// 128 random bits in hexadecimal.
fn mark() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
