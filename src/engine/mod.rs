//! The policy, told in domain words, over ports.

pub mod event;
pub mod history;
pub mod pieces;
pub mod records;
