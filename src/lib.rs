//! sshjob runs scripts over SSH, on a schedule, on fleets of Linux machines that come and go.
//!
//! # Floors
//!
//! A file imports only lower floors; adapters never import each other.
//!
//! | floor | module | what lives there |
//! |---|---|---|
//! | 4 | `main.rs` | composes the parts, hands over, exits |
//! | 3 | [`cli`] | flags to a request; results to text, JSON, progress and exit code |
//! | 3 | [`functions`] | the trigger and the worker: events to requests; results to JSON and log lines |
//! | 2 | [`engine`] | the policy, told in domain words, over ports |
//! | 1 | [`adapter`] | SSH, the directory store, the YAML inventory, the local dispatcher; S3, EC2 and Lambda |
//! | 0 | [`domain`], [`port`] | pure types and decisions; the few traits |
//!
//! # The path of a run
//!
//! `run -t Environment=Dev` becomes a [`domain::selector::Selector`]; an [`port::Inventory`] turns it into
//! instances; the engine claims the run in the [`port::Store`], freezes the script as a blob, plans batches, and
//! hands each to a worker. A worker claims its batch, connects, writes the *started* intent durably, and only then
//! sends the script. Exit statuses become [`domain::task::TaskRecord`]s; when every task is final the verdict is
//! written once, and becomes text, JSON and an exit code.
//!
//! # What is promised
//!
//! One firing is one run, whatever is delivered twice. An attempt starts at most once; if we cannot tell whether it
//! started, the task is `lost` and a person decides. Only what never started, or ended with a status that the job
//! lists in `retries.on`, is ever tried again.

pub mod adapter;
pub mod cli;
pub mod domain;
pub mod engine;
pub mod functions;
pub mod port;
