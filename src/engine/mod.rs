//! The policy, told in domain words, over ports.
//!
//! [`start`] claims and plans a run, [`drive`] carries it to its verdict, [`worker`] runs a batch of it (`task` one
//! attempt on one host), [`reconcile`] settles what a dead process left behind, [`records`] is what all of them read
//! and write.

pub mod access;
pub mod check;
pub mod claim;
pub mod clock;
pub mod collect;
mod conclude;
pub mod control;
pub mod cursor;
pub mod drive;
pub mod event;
pub mod fanout;
pub mod fire;
mod follow;
pub mod gate;
pub mod history;
pub mod ledger;
mod listen;
pub mod looks;
mod notes;
pub mod notify;
pub mod pieces;
pub mod pins;
mod places;
pub mod prune;
mod question;
pub mod reconcile;
pub mod records;
pub mod spool;
pub mod start;
pub mod task;
pub mod tick;
pub mod trust;
mod visit;
pub mod worker;
