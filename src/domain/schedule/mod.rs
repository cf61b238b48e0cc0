//! Schedule expressions: crontab, `@daily` and the like, and `EventBridge`'s `cron()`, `rate()` and `at()`.
//!
//! Here they are read and checked. [`cron`] holds the patterns, [`calendar`] puts them on the clock of a zone, less
//! what [`blackout`] forbids, and [`reading`] says them in English.

pub mod blackout;
pub mod calendar;
pub mod cron;
pub mod reading;

pub use self::calendar::{Calendar, Firing, Moved};

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::{DateTime, date};

use self::cron::{Cron, Dialect};
use crate::domain::diagnostic::{listed, nearest, quoted};

/// The macros and what they stand for.
///
/// Source: crontab(5). `@reboot` is missing: a fleet has no one boot.
const MACROS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// The longest expression: every minute of an hour, spelt out, has 200 characters.
const MAX_CHARS: usize = 1024;

/// When something fires, in the local time of its zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// At the minutes that a calendar pattern matches.
    Cron(Cron),
    /// Every so often, aligned to the Unix epoch.
    Rate(Duration),
    /// Once.
    At(DateTime),
}

impl Expression {
    /// Whether it follows elapsed time where clocks are changed, rather than firing once for each local time.
    const fn is_every_hour(&self) -> bool {
        matches!(self, Self::Cron(cron) if cron.is_every_hour())
    }

    /// The first local time that matches, from `from` on and before `before`; a rate has none.
    fn first(&self, from: DateTime, before: DateTime) -> Option<DateTime> {
        match self {
            Self::Cron(cron) => cron.first(from, before),
            Self::At(at) => Some(*at).filter(|at| from <= *at && *at < before),
            Self::Rate(_) => None,
        }
    }

    /// A local time after which none matches, where there is one.
    fn last(&self) -> Option<DateTime> {
        match self {
            Self::Cron(cron) => cron.span_of_years().map(|(_, last)| date(last, 12, 31).at(23, 59, 0, 0)),
            Self::At(at) => Some(*at),
            Self::Rate(_) => None,
        }
    }
}

/// Why an expression, a zone or a blackout range was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidSchedule {
    message: String,
    hint: Option<String>,
}

impl InvalidSchedule {
    /// What to do, where there is something.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// What is wrong with a part, before it is known what it is a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::domain) struct Wrong {
    why: String,
    hint: Option<String>,
}

impl Wrong {
    fn new(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl FromStr for Expression {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        read(text.trim()).map_err(|Wrong { why, hint }| {
            let message = format!("{} is not a schedule: {why}", quoted(text));
            InvalidSchedule { message, hint }
        })
    }
}

fn read(text: &str) -> Result<Expression, Wrong> {
    if text.len() > MAX_CHARS {
        return Err(Wrong::new(format_args!("longer than {MAX_CHARS} characters")));
    }
    if text.starts_with('@') {
        let known = MACROS.iter().map(|(name, _)| *name);
        return match MACROS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            Some((_, pattern)) => Cron::read(pattern, Dialect::Crontab).map(Expression::Cron),
            None => Err(match nearest(text, known.clone()) {
                Some(near) => Wrong::new("there is no such macro").hint(format!("did you mean `{near}`?")),
                None => Wrong::new(format_args!("macros are {}", listed(known))),
            }),
        };
    }
    match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some(("cron", fields)) => Cron::read(fields, Dialect::EventBridge).map(Expression::Cron),
        Some(("rate", rate)) => read_rate(rate).map(Expression::Rate),
        Some(("at", time)) => read_at(time).map(Expression::At),
        Some((name, _)) => Err(match nearest(name, ["cron", "rate", "at"]) {
            Some(near) => Wrong::new("there is no such form").hint(format!("did you mean `{near}(…)`?")),
            None => Wrong::new("forms with brackets are `cron(…)`, `rate(…)` and `at(…)`"),
        }),
        None => Cron::read(text, Dialect::Crontab).map(Expression::Cron),
    }
}

/// Reads `N unit`.
///
/// Source: `EventBridge` Scheduler User Guide, rate-based schedules.
fn read_rate(text: &str) -> Result<Duration, Wrong> {
    let form = || Wrong::new("a rate is a number and `minutes`, `hours` or `days`").hint("write `rate(15 minutes)`");
    let (number, unit) = text.trim().split_once(' ').ok_or_else(form)?;
    let number: u32 = number.parse().map_err(|_| form())?;
    let minutes = match unit.trim() {
        "minute" | "minutes" => 1,
        "hour" | "hours" => 60,
        "day" | "days" => 24 * 60,
        _ => return Err(form()),
    };
    match u64::from(number) * minutes {
        0 => Err(Wrong::new("a rate of 0 never comes round").hint("write 1 or more")),
        // A year: what is rarer is better said as a date.
        minutes if minutes > 366 * 24 * 60 => Err(Wrong::new("a rate is at most 366 days")),
        minutes => Ok(Duration::from_secs(minutes * 60)),
    }
}

/// Reads `yyyy-mm-ddThh:mm:ss`.
///
/// Source: `EventBridge` Scheduler User Guide, one-time schedules.
fn read_at(text: &str) -> Result<DateTime, Wrong> {
    local_time(text.trim()).ok_or_else(|| Wrong::new("a time is `yyyy-mm-ddThh:mm:ss`, local, without a zone"))
}

/// Reads `yyyy-mm-ddThh:mm`, with seconds or without; an offset would be read past, and the job's zone meant.
fn local_time(text: &str) -> Option<DateTime> {
    let (_, time) = text.split_once('T')?;
    text.parse().ok().filter(|_| time.bytes().all(|b| b.is_ascii_digit() || b == b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = text.parse::<Expression>().unwrap_err();
        let hint = error.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        format!("{error}{hint}")
    }

    #[test]
    fn expressions_as_everyone_writes_them_are_accepted() {
        for text in [
            "* * * * *",
            "*/15 * * * *",
            "0 9-17/2 * * MON-FRI",
            "5,10,15-20 0 1 jan,Jul *",
            "0 0 * * 7",
            "0 0 * * SAT-SUN",
            "0 0 L * *",
            "0 0 L-3 * *",
            "0 0 15W * *",
            "0 0 LW * *",
            "0 0 * * TUE#2",
            "0 0 * * 5L",
            "0 0 29 2 *",
            "10/5 * * * *",
            "@hourly",
            "@Yearly",
            "cron(0 12 * * ? *)",
            "cron(15 10 ? * 6L 2026-2030)",
            "cron(0 8 1 * ? *)",
            "cron(0 0 ? * L *)",
            "rate(1 minute)",
            "rate(5 minutes)",
            "rate(7 days)",
            "at(2026-11-20T13:00:00)",
        ] {
            assert!(text.parse::<Expression>().is_ok(), "{}", refused(text));
        }
    }

    #[test]
    fn expression_that_is_none_says_which_part_and_what_is_allowed() {
        let cases = [
            ("", "`` is not a schedule: 0 fields; 5 are needed: minute, hour, day-of-month, month, day-of-week"),
            (
                "0 * * * * *",
                "`0 * * * * *` is not a schedule: 6 fields; 5 are needed: minute, hour, day-of-month, month, \
                 day-of-week (hint: seconds cannot be scheduled; leave the first field out)",
            ),
            ("60 * * * *", "`60 * * * *` is not a schedule: minute `60`: 0 to 59 are allowed"),
            ("* 24 * * *", "`* 24 * * *` is not a schedule: hour `24`: 0 to 23 are allowed"),
            ("* * 0 * *", "`* * 0 * *` is not a schedule: day-of-month `0`: 1 to 31 are allowed"),
            ("* * * FOO *", "`* * * FOO *` is not a schedule: month `FOO`: 1 to 12 or `JAN` to `DEC` are allowed"),
            ("* * * * 8", "`* * * * 8` is not a schedule: day-of-week `8`: 0 to 7 or `SUN` to `SAT` are allowed"),
            ("*/0 * * * *", "`*/0 * * * *` is not a schedule: minute `*/0`: a step is 1 or more"),
            ("* 22-6 * * *", "`* 22-6 * * *` is not a schedule: hour `22-6` runs backwards (hint: write `22-23,0-6`)"),
            ("5,, * * * *", "`5,, * * * *` is not a schedule: minute ``: 0 to 59 are allowed"),
            ("0 0 ? * *", "`0 0 ? * *` is not a schedule: day-of-month `?` is for `cron(…)` only (hint: write `*`)"),
            (
                "0 0 30 2 *",
                "`0 0 30 2 *` is not a schedule: it never fires: no date matches (hint: February has at most 29 days; \
                 April, June, September and November have 30)",
            ),
            ("0 0 L-31 * *", "`0 0 L-31 * *` is not a schedule: day-of-month `L-31`: `L-1` to `L-30` are allowed"),
            (
                "0 0 * * TUE#6",
                "`0 0 * * TUE#6` is not a schedule: day-of-week `TUE#6`: a month has at most five of a weekday",
            ),
            (
                "0 0 * * L",
                "`0 0 * * L` is not a schedule: day-of-week `L` names no day (hint: write `FRIL` for the month's last \
                 Friday)",
            ),
            (
                "cron(0 12 * * * *)",
                "`cron(0 12 * * * *)` is not a schedule: one of day-of-month and day-of-week must be `?` \
                 (hint: write `?` for the one that does not matter)",
            ),
            (
                "cron(0 12 * * ?)",
                "`cron(0 12 * * ?)` is not a schedule: 5 fields; 6 are needed: minute, hour, day-of-month, month, \
                 day-of-week, year",
            ),
            (
                "cron(0 0 29 2 ? 2027)",
                "`cron(0 0 29 2 ? 2027)` is not a schedule: it never fires: no date matches (hint: February has at \
                 most 29 days; April, June, September and November have 30)",
            ),
            ("@dayly", "`@dayly` is not a schedule: there is no such macro (hint: did you mean `@daily`?)"),
            (
                "rate(5)",
                "`rate(5)` is not a schedule: a rate is a number and `minutes`, `hours` or `days` \
                 (hint: write `rate(15 minutes)`)",
            ),
            ("rate(0 days)", "`rate(0 days)` is not a schedule: a rate of 0 never comes round (hint: write 1 or more)"),
            (
                "at(2026-11-20)",
                "`at(2026-11-20)` is not a schedule: a time is `yyyy-mm-ddThh:mm:ss`, local, without a zone",
            ),
            (
                "corn(0 12 * * ? *)",
                "`corn(0 12 * * ? *)` is not a schedule: there is no such form (hint: did you mean `cron(…)`?)",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(refused(text), wanted);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = text.parse::<Expression>();
        }

        #[test]
        fn nearly_valid_text_is_read_or_refused(text in "(cron\\()?[0-9LW#,/*? A-Z-]{0,40}\\)?") {
            let _ = text.parse::<Expression>();
        }
    }
}
