//! The integration tests: one binary, one module per subject.
//!
//! | module | proves |
//! |---|---|
//! | `fleet` | that the hosts other tests run against are what they claim: embedded, OpenSSH, and faulty ones |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this is test code, helper functions included, which clippy cannot see"
)]
#![allow(unreachable_pub, reason = "support is written for every module here")]
    clippy::print_stderr,
    reason = "all of it is tests: clippy's own exception covers the test functions alone"
)]

#[path = "../support/mod.rs"]
mod support;

mod store_contract;
mod store_dir;
mod store_memory;
mod fleet;
