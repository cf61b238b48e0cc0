//! The few traits: what the engine needs of the outside, each with two production implementations.

use std::future::Future;

use zeroize::Zeroizing;

use crate::domain::id::{InstanceId, RunId};
use crate::domain::instance::Instance;
use crate::domain::job::notify::{Channel, Topic};
use crate::domain::job::{Job, Notify};
use crate::domain::layout::Key;
use crate::domain::notice::Notice;
use crate::domain::order::Order;

/// The state of an object that a compare-and-swap compares: an entity tag or a hash of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// An object as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its content.
    pub bytes: Vec<u8>,
    /// What a compare-and-swap of it must name.
    pub version: Version,
}

/// What came of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It was written, durably; this is its version now.
    Done(Version),
    /// Nothing was written: the object exists (create), is gone or has changed (swap).
    Conflict,
}

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or used; trying again later may help.
    #[error("cannot {action} `{at}`")]
    Unavailable {
        /// What was attempted, as `read`.
        action: &'static str,
        /// The key or place.
        at: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An object does not hold what it should.
    #[error("`{at}` is damaged: {why}")]
    Damaged {
        /// The key.
        at: String,
        /// What is wrong with it.
        why: String,
    },
}

impl StoreError {
    /// Whether an object does not hold what it should: trying again does not help.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// The object at `key` has more than `most` bytes.
pub(crate) fn too_large(key: &Key, most: usize) -> StoreError {
    StoreError::Damaged { at: key.to_string(), why: format!("it has more than {most} bytes") }
}

/// Where runs live. Every write is durable when it returns, but for what is added, which is to be settled; no reader ever
/// sees half an object.
///
/// Keys list in byte order. A failed call may or may not have written: callers read back.
pub trait Store: Clone + Send + Sync + 'static {
    /// Reads an object; `None` where there is none.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<Object>, StoreError>> + Send;
    /// The same of an object that has at most `most` bytes; a larger one is damaged, and need not fit into memory.
    fn get_at_most(&self, key: &Key, most: usize) -> impl Future<Output = Result<Option<Object>, StoreError>> + Send {
        async move {
            let found = self.get(key).await?;
            if found.as_ref().is_some_and(|object| object.bytes.len() > most) {
                return Err(too_large(key, most));
            }
            Ok(found)
        }
    }
    /// Writes an object that does not exist yet. Of any number of callers one wins.
    fn create(&self, key: &Key, bytes: Vec<u8>) -> impl Future<Output = Result<Written, StoreError>> + Send;
    /// Replaces an object that still has the version `expected`.
    fn swap(
        &self,
        key: &Key,
        expected: &Version,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<Written, StoreError>> + Send;
    /// Lists the keys that start with `prefix` and come after `after`, in order, at most `limit`.
    fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Key>, StoreError>> + Send;
    /// Reads an object that nobody will replace: its version is not worth finding out.
    fn bytes(&self, key: &Key) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send {
        async { Ok(self.get(key).await?.map(|object| object.bytes)) }
    }
    /// Creates an object that nobody will replace; tells whether it was not there. It is whole for every reader at once, and
    /// durable when [`Self::settle`] returns.
    fn add(&self, key: &Key, bytes: Vec<u8>) -> impl Future<Output = Result<bool, StoreError>> + Send {
        async { Ok(matches!(self.create(key, bytes).await?, Written::Done(_))) }
    }
    /// Makes durable what was added beside `key`, of the same task: once for many pieces of output.
    fn settle(&self, _key: &Key) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }
    /// Removes an object; it is no error where there is none.
    fn remove(&self, key: &Key) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Why an inventory could not answer. Never the same as an empty fleet.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It cannot be reached or read; trying again later may help.
    #[error("cannot read the inventory `{at}`: {why}")]
    Unavailable {
        /// Where it is.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// It says something that is not allowed; the text is complete, with places and hints.
    #[error("{0}")]
    Invalid(String),
}

/// Where instances come from.
pub trait Inventory: Send + Sync {
    /// Selects the running instances that the targets of `job` choose, sorted by id; empty when none match, which is no
    /// error.
    fn select(&self, job: &Job) -> impl Future<Output = Result<Vec<Instance>, InventoryError>> + Send;

    /// The same, of the instance `id` alone, of which somebody says that it runs; none where it does not match, or runs no
    /// more. A limit counts it alone: which others there are is another question.
    ///
    /// # Errors
    /// Also where it is not known yet, or not yet known to run.
    fn select_one(
        &self,
        job: &Job,
        id: &InstanceId,
    ) -> impl Future<Output = Result<Option<Instance>, InventoryError>> + Send {
        async move { Ok(self.select(job).await?.into_iter().find(|instance| instance.id == *id)) }
    }
}

impl<I: Inventory> Inventory for &I {
    fn select(&self, job: &Job) -> impl Future<Output = Result<Vec<Instance>, InventoryError>> + Send {
        (**self).select(job)
    }

    fn select_one(
        &self,
        job: &Job,
        id: &InstanceId,
    ) -> impl Future<Output = Result<Option<Instance>, InventoryError>> + Send {
        (**self).select_one(job, id)
    }
}

/// Where the scripts of jobs come from.
pub trait Scripts: Send + Sync {
    /// The bytes that `job` runs, complete and within bounds.
    ///
    /// # Errors
    /// Why they cannot be had, for people.
    fn script(&self, job: &Job) -> impl Future<Output = Result<Vec<u8>, String>> + Send;
}

/// Why an order was not handed over.
#[derive(Debug, thiserror::Error)]
#[error("cannot hand batch {batch} of `{run}` to a worker: {why}")]
pub struct DispatchError {
    /// The run.
    pub run: RunId,
    /// The number of the batch.
    pub batch: u32,
    /// What is wrong.
    pub why: String,
}

/// Who hands orders to workers.
pub trait Dispatcher: Send + Sync {
    /// Hands an order to a worker and returns before it is carried out. May hand it over twice; the claim of the batch
    /// makes that harmless.
    fn dispatch(&self, order: Order) -> impl Future<Output = Result<(), DispatchError>> + Send;
}

/// Why people were not told. It names nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotifyError(pub String);

/// Who tells people.
pub trait Notifier: Send + Sync {
    /// Tells of `notice` by `channel`, which `rule` sets up. It takes seconds at most, whatever is at the other end.
    ///
    /// After an error people may have been told or not: whoever sends again sends the same.
    fn send(
        &self,
        notice: &Notice,
        rule: &Notify,
        channel: Channel,
    ) -> impl Future<Output = Result<(), NotifyError>> + Send;
}

/// Who publishes to SNS topics.
pub trait Topics: Send + Sync {
    /// Publishes `text` to `topic`; where that sends mail, `subject` (ASCII, one line, less than 100 characters) heads it.
    ///
    /// Which credentials it has is its own business. Its errors name nothing secret.
    fn publish(&self, topic: &Topic, subject: &str, text: &str)
    -> impl Future<Output = Result<(), NotifyError>> + Send;
}

/// Why a private key, or another secret, could not be read. It never shows any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyReadError {
    /// Its place cannot be reached; trying again later may help.
    #[error("{0}")]
    Unavailable(String),
    /// There is none, or it may not be read: someone has to act.
    #[error("{0}")]
    Refused(String),
}

/// Where private keys come from that are in a bucket.
pub trait Keys: Send + Sync {
    /// Reads the private key at `s3://bucket/key`, complete; it is wiped when dropped.
    fn read_key(
        &self,
        bucket: &str,
        key: &str,
    ) -> impl Future<Output = Result<Zeroizing<Vec<u8>>, KeyReadError>> + Send;
}

/// Where secrets come from that are parameters.
pub trait Parameters: Send + Sync {
    /// Reads the parameter at `path`, decrypted; it is wiped when dropped.
    fn read_parameter(&self, path: &str) -> impl Future<Output = Result<Zeroizing<String>, KeyReadError>> + Send;
}
