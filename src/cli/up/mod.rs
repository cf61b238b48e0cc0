//! The scheduler on this machine.
//!
//! [`book`] has the jobs as their files last made sense, [`scheduler`] ticks, [`carry`] takes runs to their verdicts and
//! [`tell`] says what becomes of them.

pub mod book;
pub mod carry;
pub mod scheduler;
pub mod tell;
