//! The policy, told in domain words, over ports.

pub mod event;
pub mod records;
