//! Names that end up in file names, object keys and log lines: checked once, at the door.
//!
//! Every record that is read has some: they are `#[inline]`, so that a crate that is built with optimization, as the
//! simulation is, has the checks optimized, too.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{found}` is not allowed: {allowed}")]
pub struct InvalidName {
    what: &'static str,
    found: String,
    allowed: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[inline]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            #[inline]
            fn is_allowed(text: &str) -> bool {
                let check: fn(&str) -> bool = $check;
                check(text)
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            #[inline]
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                text.to_owned().try_into()
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            #[inline]
            fn try_from(text: String) -> Result<Self, InvalidName> {
                if Self::is_allowed(&text) {
                    Ok(Self(text))
                } else {
                    // A hostile name must not flood a terminal or a log line.
                    let found = text.chars().filter(|c| !c.is_control()).take(80).collect();
                    Err(InvalidName { what: $what, found, allowed: $allowed })
                }
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a job: `[a-z0-9][a-z0-9-]{0,62}`.
    JobName,
    "job name",
    "1 to 63 of a-z, 0-9 and `-`, not starting with `-`",
    |s| (1..=63).contains(&s.len())
        && !s.starts_with('-')
        && s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
);

name!(
    /// The id of an instance: what EC2 or the inventory file calls it, or the host of `-w`.
    InstanceId,
    "instance id",
    "1 to 200 of A-Z, a-z, 0-9 and `-_.:%@+`, not starting with `.`",
    |s| (1..=200).contains(&s.len())
        && !s.starts_with('.')
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:%@+".contains(&b))
);

name!(
    /// The id of a run: `<job>-<time>` for a firing, `<job>-<time>-<tail>` on demand.
    ///
    /// Sorts by time within its job and is safe in a file name.
    RunId,
    "run id",
    "`<job>-<YYYYMMDD>T<HHMMSS>Z`, on demand with `-<tail>`",
    |s| s.len() <= 120 && split_run_id(s).is_some()
);

impl RunId {
    /// Names the firing of `job` that is due at `at`.
    pub fn of_firing(job: &JobName, at: Timestamp) -> Self {
        Self(format!("{job}-{}", at.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// Names a run on demand that started at `at`; `tail` (lower-case hexadecimal) is hashed from the request.
    pub fn on_demand(job: &JobName, at: Timestamp, tail: &str) -> Self {
        Self(format!("{job}-{}-{tail}", at.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The job that this run is one of.
    #[inline]
    pub fn job(&self) -> JobName {
        JobName(self.job_name().to_owned())
    }

    /// The name of that job.
    #[inline]
    pub fn job_name(&self) -> &str {
        self.firing().rsplit_once('-').map_or("", |(job, _)| job)
    }

    /// When it was to fire, or started on demand, as `YYYYMMDDTHHMMSSZ`: as text, times sort as they follow each other.
    pub fn time(&self) -> &str {
        self.firing().rsplit_once('-').map_or("", |(_, time)| time)
    }

    /// The id without its tail.
    #[inline]
    fn firing(&self) -> &str {
        // A time ends with `Z`, and no tail does.
        if self.0.ends_with('Z') { &self.0 } else { self.0.rsplit_once('-').map_or("", |(firing, _)| firing) }
    }
}

/// Splits `<job>-<YYYYMMDD>T<HHMMSS>Z[-<tail>]` into the job and the rest.
#[inline]
fn split_run_id(text: &str) -> Option<(&str, &str)> {
    let is_time = |part: &str| {
        part.len() == 16
            && part.bytes().enumerate().all(|(i, b)| match i {
                8 => b == b'T',
                15 => b == b'Z',
                _ => b.is_ascii_digit(),
            })
    };
    let (head, last) = text.rsplit_once('-')?;
    let (job, rest) = if is_time(last) {
        (head, last)
    } else {
        let (job, time) = head.rsplit_once('-')?;
        let tail_ok = (1..=32).contains(&last.len()) && last.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_time(time) || !tail_ok {
            return None;
        }
        (job, text.get(job.len() + 1..)?)
    };
    JobName::is_allowed(job).then_some((job, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_id_names_its_job() {
        let job: JobName = "rotate-logs".parse().unwrap();
        let at: Timestamp = "2026-11-22T22:15:00Z".parse().unwrap();
        let firing = RunId::of_firing(&job, at);
        assert_eq!(firing.as_str(), "rotate-logs-20261122T221500Z");
        assert_eq!(firing.job(), job);
        let demand = RunId::on_demand(&job, at, "1f2e3d");
        assert_eq!(demand.as_str(), "rotate-logs-20261122T221500Z-1f2e3d");
        assert_eq!(demand.job(), job);
        assert_eq!((firing.time(), demand.time()), ("20261122T221500Z", "20261122T221500Z"));
        assert_eq!(demand.as_str().parse::<RunId>().unwrap(), demand);
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\0", ".hidden", "a b", "ä"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
            assert!(bad.parse::<JobName>().is_err(), "{bad:?}");
            assert!(bad.parse::<RunId>().is_err(), "{bad:?}");
        }
        assert!("x-20261122T221500Z-../a".parse::<RunId>().is_err());
    }
}
