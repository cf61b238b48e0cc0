//! The integration tests: one binary, one module per subject.
//!
//! | module | proves |
//! |---|---|
//! | `algorithms` | that hosts with one algorithm each connect, or that both sides are named; what ssh-audit says of us |
//! | `aws` | what the store, the inventory and the dispatcher of AWS do, against emulators and servers that are not well |
//! | `burden` | that floods of output take little memory, and what Ctrl-C does |
//! | `cancel` | that a run which another process drives is ended on its hosts |
//! | `check` | that `sshjob check` says how far one gets, why no further, and what to do |
//! | `crash` | that a run which is killed at any of its writes lies about nothing and starts nothing twice; `killed` the same of the program, at random moments |
//! | `delivery` | that what is sent to a host arrives exactly or not at all, whatever shells are there, and ends as it must |
//! | `detached` | that a detached program runs once, that what is told of it is true, whoever is killed, and that it ends when asked to |
//! | `detached_run` | that a detached run is told truthfully from its start to its end, whoever dies in between |
//! | `fleet` | that the hosts other tests run against are what they claim: embedded, OpenSSH, and faulty ones |
//! | `functions` | that the trigger and the worker do what a scheduler does, whatever comes twice, late or never |
//! | `hostile` | that a host that lies, floods or stalls ends in the right state, in bounded time and memory |
//! | `program` | what the program itself does on real sshd hosts: documents and exit codes |
//! | `project` | that the example jobs, their schema and the commands on them agree |
//! | `prune` | that what is being created or is not settled yet is not pruned away |
//! | `push` | that the command of this name uploads sound jobs, what they need and no more, and what is made of them |
//! | `round_trips` | how often a task waits for its host's answer |
//! | `host_ca` | which host certificates are believed, of whom and for whom |
//! | `hosts` | that the command of this name lists what a selector matches, and says why nothing does |
//! | `history` | what `runs`, `status`, `logs` and `prune` make of records, whole, gapped, damaged or half removed |
//! | `retries` | what is kept of a task that waits for its next attempt, and what comes of it |
//! | `identities` | that agents, certificates and several keys let us in, and what is said where they do not |
//! | `ipv6` | that addresses of version six are reached and trusted however they are named |
//! | `next` | that the command of this name shows when jobs fire, what changed clocks do to it, and what it means |
//! | `notify` | what people are sent of a run, and what is said of servers that are not well |
//! | `outbox` | that whoever is to be told is told, whatever crashes or is down, and as good as never twice |
//! | `overlap` | what firings make of runs that somebody asked for, and the other way round |
//! | `output` | what a live run shows to people and machines, compared whole; `schema` the documents of machines |
//! | `jump` | that every host on the way to a target is checked, and a bastion is spared |
//! | `servers` | that Dropbear, asyncssh, paramiko and TinySSH servers do for jobs what OpenSSH does |
//! | `readme` | that what the README shows is what the program says |
//! | `rollout` | what stops a rolling run, whoever drives it |
//! | `rotation` | that a pinned host which gets new keys stays trusted, and what is learned of it |
//! | `schedule` | when jobs fire where clocks are changed, and that another reading of crontab agrees |
//! | `ssh_config` | that `~/.ssh/config` means to us what it means to ssh, and is obeyed for hosts that are named |
//! | `secrets` | that keys, passphrases and secrets are seen nowhere |
//! | `ledger` | that ends share their writes, and that no start waits for company |
//! | `settle` | what is made of a run whose driver died, whatever it had written |
//! | `store_contract` | what every store promises; `store_dir` and `store_memory` put theirs to it; `inventory_contract` and `dispatch_contract` the same of inventories and of who sends for workers |
//! | `up` | that the scheduler fires what is due and carries it to its end, whatever happens to it and to its files; `up_killed` when it is killed at fifty random moments |
//! | `validate` | every message about a job file or project file, compared whole |
//! | `sudo` | whom one becomes by sudo, what is refused in which words, and that all of it ends |
//! | `tick` | what becomes of firings whatever the clock, the inventory and earlier runs do |
//! | `told` | what people hear of real runs: their start, their end, and all of it after an outage |
//! | `trust` | whose host key is believed, and what `sshjob trust` does about it |
//! | `wild` | what is said of hosts as they really are: every login shell, login, home and server setting |
//! | `watchdog` | that nothing runs on where nobody listens any more, however that came about |
//! | `wire` | that whatever byte of a connection is cut, flipped, late or last, the truth is told, and nothing starts twice |
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

mod algorithms;
#[cfg(feature = "aws")]
mod aws;
mod burden;
mod cancel;
mod check;
mod crash;
mod delivery;
mod detached;
mod detached_run;
mod dispatch_contract;
mod fleet;
mod functions;
mod history;
mod host_ca;
mod hostile;
mod hosts;
mod identities;
mod inventory_contract;
mod ipv6;
mod jump;
mod killed;
mod ledger;
mod next;
mod notify;
mod outbox;
mod output;
mod overlap;
mod program;
mod project;
mod prune;
mod push;
mod readme;
mod retries;
mod rollout;
mod rotation;
mod round_trips;
mod schedule;
mod schema;
mod secrets;
mod servers;
mod settle;
mod ssh_config;
mod store_contract;
mod store_dir;
mod store_memory;
mod sudo;
mod tick;
mod told;
mod trust;
mod up;
mod up_killed;
mod validate;
mod watchdog;
mod wild;
mod wire;
mod work;
