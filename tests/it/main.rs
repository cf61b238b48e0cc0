//! The integration tests: one binary, one module per subject.
//!
//! | module | proves |
//! |---|---|
//! | `burden` | that floods of output take little memory, and what Ctrl-C does |
//! | `delivery` | that what is sent to a host arrives exactly or not at all, whatever shells are there, and ends as it must |
//! | `detached` | that a detached program runs once, that what is told of it is true, whoever is killed, and that it ends when asked to |
//! | `fleet` | that the hosts other tests run against are what they claim: embedded, OpenSSH, and faulty ones |
//! | `program` | what the program itself does on real sshd hosts: documents and exit codes |
//! | `project` | that the example jobs, their schema and the commands on them agree |
//! | `hosts` | that the command of this name lists what a selector matches, and says why nothing does |
//! | `history` | what `runs`, `status`, `logs` and `prune` make of records, whole, gapped, damaged or half removed |
//! | `output` | what a live run shows to people and machines, compared whole; `schema` the documents of machines |
//! | `store_contract` | what every store promises; `store_dir` and `store_memory` put theirs to it |
//! | `validate` | every message about a job file or project file, compared whole |
//! | `trust` | whose host key is believed, and what `sshjob trust` does about it |
//! | `work` | that a run on real sshd hosts ends as it must, and nothing starts twice |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "all of it is tests: clippy's own exception covers the test functions alone"
)]
#![allow(unreachable_pub, reason = "support is written for every module here")]

#[path = "../support/mod.rs"]
mod support;

mod burden;
mod crash;
mod delivery;
mod detached;
mod fleet;
mod history;
mod hosts;
mod killed;
mod output;
mod program;
mod project;
mod readme;
mod schema;
mod settle;
mod store_contract;
mod store_dir;
mod store_memory;
mod trust;
mod validate;
mod work;
