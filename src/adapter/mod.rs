//! The outside: one module per thing; adapters never import each other.

pub mod dir;
pub mod ssh;
