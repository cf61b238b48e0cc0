//! The outside: one module per thing; adapters never import each other.

pub mod local;
pub mod process;
pub mod ssh;
