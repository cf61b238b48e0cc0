//! The policy, told in domain words, over ports.
