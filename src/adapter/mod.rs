//! The outside: one module per thing; adapters never import each other.

pub mod fleet;
pub mod ssh;
