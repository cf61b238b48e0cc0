//! Expressions in plain English.
