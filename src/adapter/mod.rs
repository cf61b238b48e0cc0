//! The outside: one module per thing; adapters never import each other.

pub mod ssh;
