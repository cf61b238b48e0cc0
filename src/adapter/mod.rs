//! The outside: one module per thing; but for the one that chooses a store, none imports another.

#[cfg(feature = "sdk")]
pub mod aws;
pub mod dir;
pub mod fleet;
pub mod hosts;
pub mod local;
pub mod notify;
pub mod process;
pub mod ssh;
pub mod store;
