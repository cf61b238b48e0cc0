//! What several integration tests share: real servers first, fakes where a fault must be exact.

pub mod memory;
//!
//! [`sshd`] starts OpenSSH daemons, [`fault`] hosts that misbehave at an exact point, [`key`] makes keys, [`loopback`]
//! finds addresses, and [`client`] is the plain `ssh` that proves that the servers are right.

#![allow(dead_code, reason = "a server offers what any test may need")]

pub(crate) mod client;
pub(crate) mod fault;
pub(crate) mod key;
pub(crate) mod loopback;
pub(crate) mod sshd;
