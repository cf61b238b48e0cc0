//! Flags to a request; results to text, JSON, progress and exit code.
