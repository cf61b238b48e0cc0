//! Results for people and for machines; nothing else writes to standard output.

pub mod console;
pub mod lines;
pub mod print;
pub mod table;
pub mod verdict;
pub mod words;
