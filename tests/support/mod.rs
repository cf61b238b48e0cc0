//! What several integration tests share: real servers first, fakes where a fault must be exact.

pub mod memory;
