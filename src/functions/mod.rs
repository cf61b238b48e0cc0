//! The two functions: the trigger plans and fans out, the worker connects and runs.
//!
//! Both do what the scheduler of one machine does, by the same engine. An event of theirs may come twice, late, or not
//! at all; what has been done the store tells. Workers never send for the trigger: chains of functions are ended by
//! Lambda after some sixteen links, and a chain that breaks is a run that stands still. Waves advance by the tick.

pub mod book;
pub mod environment;
pub mod event;
#[cfg(feature = "functions")]
pub mod invocation;
pub mod log;
pub mod refusal;
pub mod trigger;
pub mod worker;
