//! Results for people and for machines; nothing else writes to standard output.
//!
//! [`mod@print`] shows a live run; the commands that look back use the same parts.

pub mod advice;
pub mod console;
pub mod copy;
mod group;
pub mod json;
pub mod lines;
pub mod print;
mod progress;
pub mod report;
pub mod table;
pub mod text;
pub mod verdict;
pub mod words;
