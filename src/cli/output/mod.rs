//! Results for people and for machines; nothing else writes to standard output.
