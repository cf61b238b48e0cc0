//! The outside: one module per thing that can be swapped or mocked only as a whole.
