//! Either store, where only whoever runs the program knows which.

#[cfg(feature = "s3")]
use super::aws::s3::S3Store;
use super::dir::Dir;
use crate::domain::layout::Key;
use crate::port::{Object, Store, StoreError, Version, Written};

/// A directory, or a prefix of a bucket.
///
/// What asks S3 is boxed: it is twenty times what asks a directory, and would be part of all that waits for a store.
#[derive(Debug, Clone)]
pub enum AnyStore {
    /// On this machine, or on a file system that machines share.
    Dir(Dir),
    /// In S3.
    #[cfg(feature = "s3")]
    S3(S3Store),
}

impl Store for AnyStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        match self {
            Self::Dir(store) => store.get(key).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => Box::pin(store.get(key)).await,
        }
    }

    async fn get_at_most(&self, key: &Key, most: usize) -> Result<Option<Object>, StoreError> {
        match self {
            Self::Dir(store) => store.get_at_most(key, most).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => Box::pin(store.get_at_most(key, most)).await,
        }
    }

    async fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Dir(store) => store.bytes(key).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => Box::pin(store.bytes(key)).await,
        }
    }

    async fn add(&self, key: &Key, bytes: Vec<u8>) -> Result<bool, StoreError> {
        match self {
            Self::Dir(store) => store.add(key, bytes).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => Box::pin(store.add(key, bytes)).await,
        }
    }

    async fn settle(&self, key: &Key) -> Result<(), StoreError> {
        match self {
            Self::Dir(store) => store.settle(key).await,
            // Durable as soon as it is written.
            #[cfg(feature = "s3")]
            Self::S3(_) => Ok(()),
        }
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        match self {
            Self::Dir(store) => store.create(key, bytes).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => Box::pin(store.create(key, bytes)).await,
        }
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        match self {
            Self::Dir(store) => store.swap(key, expected, bytes).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => Box::pin(store.swap(key, expected, bytes)).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        match self {
            Self::Dir(store) => store.list(prefix, after, limit).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => Box::pin(store.list(prefix, after, limit)).await,
        }
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        match self {
            Self::Dir(store) => store.remove(key).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => Box::pin(store.remove(key)).await,
        }
    }
}
