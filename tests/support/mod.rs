//! What several integration tests share: real servers first, fakes where a fault must be exact.
//!
//! [`sshd`] starts OpenSSH daemons, [`fault`] hosts that misbehave at an exact point, [`hostile`] hosts
//! that lie and flood, packet by packet over a [`speaker`], [`proxy`] ways on which one byte goes wrong, [`key`] makes keys, [`loopback`]
//! finds addresses, [`client`] is the plain `ssh` that proves that the servers are right, [`rig`] drives the engine,
//! [`world`] is a folder in which the program itself is called, [`memory`] is a store in memory that fails on demand, and
//! [`tale`] writes the records of runs that never ran.

#![allow(dead_code, reason = "a server offers what any test may need")]

pub(crate) mod client;
pub(crate) mod fault;
pub(crate) mod hostile;
pub(crate) mod key;
pub(crate) mod killer;
pub(crate) mod loopback;
pub mod memory;
pub(crate) mod proxy;
pub(crate) mod rig;
pub(crate) mod speaker;
pub(crate) mod sshd;
pub mod tale;
pub(crate) mod world;
