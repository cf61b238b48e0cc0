//! Pure types and decisions: no async, clock, randomness, environment, file or network access.
//!
//! `now` is passed in. What is written to the store is defined here, field by field, as the types of
//! [`run`], [`task`] and [`layout`].

pub mod authority;
pub mod certificate;
pub mod cursor;
pub mod decode;
pub mod delivery;
pub mod detached;
pub mod diagnostic;
pub mod document;
pub mod fanout;
pub mod firing;
pub mod hostrange;
pub mod hosts_file;
pub mod id;
pub mod instance;
pub mod job;
pub mod known_hosts;
pub mod layout;
pub mod location;
pub mod notice;
pub mod order;
pub mod pattern;
pub mod plan;
pub mod project;
pub mod public_key;
pub mod quantity;
pub mod run;
pub mod schedule;
pub mod script;
pub mod selector;
pub mod ssh_config;
pub mod task;
pub mod trust;
pub mod yaml;
