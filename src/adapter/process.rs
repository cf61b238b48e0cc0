//! This process and others of this machine, as `/proc` shows them.

use std::fs;
use std::io::ErrorKind;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::domain::run::Holder;

/// Names this process; `None` where `/proc` does not tell, and in a function: environments that were made of one
/// snapshot have the same boot id and number their processes alike.
pub fn this() -> Option<Holder> {
    // It stays the same for as long as the process lives, and is asked for at every claim.
    static THIS: LazyLock<Option<Holder>> = LazyLock::new(|| {
        let pid = std::process::id();
        if is_function() {
            return None;
        }
        Some(Holder { machine: machine()?, pid, started: started(pid).ok()?? })
    });
    THIS.clone()
}

/// Whether `holder` has certainly ended. A process of another machine is never said to have ended.
pub fn has_ended(holder: &Holder) -> bool {
    this().is_some_and(|this| this != *holder && this.machine == holder.machine)
        && match started(holder.pid) {
            Ok(None) => true,
            Ok(Some(started)) => started != holder.started,
            Err(_) => false,
        }
}

/// Whether `holder` is another process of this machine that runs at this moment: it has not ended, and nobody has stopped
/// it (`SIGSTOP`).
///
/// Of itself a process does not say so: what it held when a part of it failed nobody holds any more.
pub fn is_at_work(holder: &Holder) -> bool {
    this().is_some_and(|this| this != *holder && this.machine == holder.machine)
        && stat(holder.pid).is_ok_and(|stat| stat.is_some_and(|it| it.started == holder.started && !it.is_stopped))
}

/// Whether the process `pid` that started at `since`, in clock ticks since boot, runs on this machine.
pub fn is_running(pid: u32, since: u64) -> bool {
    started(pid).is_ok_and(|started| started == Some(since))
}

#[expect(clippy::disallowed_methods, reason = "what only the environment tells of this process")]
fn is_function() -> bool {
    std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some()
}

/// How long this machine has been up; `None` where `/proc` does not tell.
pub fn up_for() -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // Containers of one machine share its boot id and number their processes apart.
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// The start time of process `pid` in clock ticks since boot; `None` where there is no such process.
fn started(pid: u32) -> std::io::Result<Option<u64>> {
    Ok(stat(pid)?.map(|stat| stat.started))
}

/// What `/proc` tells of a process.
struct Stat {
    /// Clock ticks from boot to its start.
    started: u64,
    /// Whether it is stopped, or traced.
    is_stopped: bool,
}

fn stat(pid: u32) -> std::io::Result<Option<Stat>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == ErrorKind::NotFound => return hidden(pid),
        Err(error) => return Err(error),
    };
    // The name in field 2 may hold blanks and brackets: count from its last one. A zombie (Z) runs no more.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let state = fields.next();
    if state == Some("Z") {
        return Ok(None);
    }
    // Field 22; the state, just taken, is field 3.
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    Ok(started.map(|started| Stat { started, is_stopped: matches!(state, Some("T" | "t")) }))
}

/// A process that `/proc` does not show: it is gone, or another user's where those are hidden (`hidepid`, `ProtectProc`).
/// Of the latter nothing is known.
fn hidden(pid: u32) -> std::io::Result<Option<Stat>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match test_kill_process(pid) {
        Err(Errno::SRCH) => Ok(None),
        _ => Err(ErrorKind::PermissionDenied.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_up_for_a_while() {
        assert!(up_for().unwrap() > Duration::ZERO);
    }

    #[test]
    fn this_process_has_not_ended_and_its_like_has() {
        let this = this().unwrap();
        assert!(!has_ended(&this));
        assert!(has_ended(&Holder { started: this.started + 1, ..this.clone() }));
        assert!(!has_ended(&Holder { machine: "elsewhere".into(), started: 0, pid: 1 }));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let started = started(pid).ok().flatten().unwrap_or_default();
        child.wait().unwrap();
        assert!(has_ended(&Holder { pid, started, ..this.clone() }));
        assert!(hidden(pid).unwrap().is_none());
        assert!(hidden(this.pid).is_err() && hidden(1).is_err());
        assert!(!is_at_work(&this) && !is_at_work(&Holder { pid, started, ..this }));
    }
}
