//! The integration tests: one binary, one module per subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this is test code, helper functions included, which clippy cannot see"
)]
#![allow(unreachable_pub, reason = "support is written for every module here")]

#[path = "../support/mod.rs"]
mod support;

mod store_contract;
mod store_dir;
mod store_memory;
