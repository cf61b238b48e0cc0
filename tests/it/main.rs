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
    clippy::print_stderr,
    reason = "all of it is tests: clippy's own exception covers the test functions alone"
)]

#[path = "../support/mod.rs"]
mod support;

mod fleet;
