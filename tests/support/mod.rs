//! What several integration tests share: real servers first, fakes where a fault must be exact. Each file says in its
//! first line what it is.

#![allow(dead_code, reason = "a server offers what any test may need")]

pub(crate) mod agent;
pub(crate) mod ca;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod crowd;
pub(crate) mod detour;
pub(crate) mod emulator;
pub(crate) mod eventually;
pub(crate) mod fault;
pub(crate) mod flights;
pub(crate) mod foreign;
pub(crate) mod hook;
pub(crate) mod hostile;
pub(crate) mod key;
pub(crate) mod killer;
pub(crate) mod loopback;
pub(crate) mod machine;
pub(crate) mod mailhost;
pub mod memory;
pub(crate) mod proxy;
pub(crate) mod rig;
pub(crate) mod scheduler;
pub(crate) mod simulation;
pub(crate) mod skip;
pub(crate) mod speaker;
pub(crate) mod sshd;
pub(crate) mod steps;
pub mod tale;
pub(crate) mod wire;
pub(crate) mod world;
