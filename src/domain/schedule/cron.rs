//! Calendar patterns: which minutes of which days, by a clock that nobody changes.
//!
//! The `cron` crate says which values the plain fields name. It is told them in its own words: seconds first, days of
//! the week by name, no step beyond the range. It is never asked for times: where both day fields are restricted it
//! wants both to match, it knows no `L`, `W` and `#` and no year after 2100, and it loses and doubles firings where
//! clocks are changed.
//!
//! Sources: crontab(5); `EventBridge` Scheduler User Guide, cron-based schedules.

use cron::{Schedule as Fields, TimeUnitSpec as _};
use jiff::civil::{Date, DateTime, Time, Weekday, date};

use super::Wrong;
use crate::domain::diagnostic::quoted;

/// Who wrote a pattern, and thus how days and years are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Five fields; Sunday is 0 or 7.
    Crontab,
    /// Six fields, the last one the year; Sunday is 1; `?` for the day field that does not matter.
    EventBridge,
}

/// A calendar pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// What is plain in each field; a day field without a plain part stands there as `*`.
    pub(super) fields: Fields,
    /// The hours and the minutes among them, a bit each: a tick asks every job's, 10,000 of them.
    hours: u32,
    minutes: u64,
    /// Whether every hour, or every n-th, is meant: it then follows elapsed time where clocks are changed.
    every_hour: bool,
    pub(super) days: Days,
    pub(super) weekdays: Weekdays,
    /// First and last year and the step of each range; none means every year.
    pub(super) years: Vec<(i16, i16, i16)>,
}

/// What the days of a month must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Days {
    /// Written as `*`, `*/n` or `?`: the weekdays decide too, or alone.
    open: bool,
    /// Whether some are named by number.
    pub(super) plain: bool,
    /// So many days before the last.
    pub(super) before_last: Vec<i8>,
    /// The weekday (Monday to Friday) nearest to this day, in the same month.
    pub(super) near: Vec<i8>,
    /// The last weekday (Monday to Friday).
    pub(super) last_working: bool,
}

/// What the days of a week must be, Sunday being 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Weekdays {
    /// Written as `*`, `*/n` or `?`: the days of the month decide too, or alone.
    open: bool,
    /// Whether some are named, whichever week it is.
    pub(super) plain: bool,
    /// The last one of the month.
    pub(super) last: Vec<i8>,
    /// The n-th one of the month: day and n.
    pub(super) nth: Vec<(i8, i8)>,
}

/// What a field may hold.
struct Field {
    name: &'static str,
    from: i16,
    to: i16,
    /// Names of the values, the first one being `from`.
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", from: 0, to: 59, names: &[] };
const HOUR: Field = Field { name: "hour", from: 0, to: 23, names: &[] };
const DAY: Field = Field { name: "day-of-month", from: 1, to: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    from: 1,
    to: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
const WEEKDAY_NAMES: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const YEAR: Field = Field { name: "year", from: 1970, to: 2199, names: &[] };

impl Dialect {
    const fn weekday(self) -> Field {
        let (from, to) = match self {
            Self::Crontab => (0, 7),
            Self::EventBridge => (1, 7),
        };
        Field { name: "day-of-week", from, to, names: WEEKDAY_NAMES }
    }
}

impl Cron {
    /// Reads the fields of a pattern.
    pub(super) fn read(text: &str, dialect: Dialect) -> Result<Self, Wrong> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (minute, hour, day, month, weekday, year) = match (&fields[..], dialect) {
            ([minute, hour, day, month, weekday], Dialect::Crontab) => (minute, hour, day, month, weekday, None),
            ([minute, hour, day, month, weekday, year], Dialect::EventBridge) => {
                (minute, hour, day, month, weekday, Some(year))
            }
            _ => return Err(wrong_count(fields.len(), dialect)),
        };
        if dialect == Dialect::EventBridge && (*day == "?") == (*weekday == "?") {
            return Err(Wrong::new("one of day-of-month and day-of-week must be `?`")
                .hint("write `?` for the one that does not matter"));
        }
        let (days, plain_days) = Days::read(day, dialect)?;
        let (weekdays, plain_weekdays) = Weekdays::read(weekday, dialect)?;
        let (minutes, hours, months) = (MINUTE.plain(minute)?, HOUR.plain(hour)?, MONTH.plain(month)?);
        let fields = format!("0 {minutes} {hours} {plain_days} {months} {plain_weekdays}");
        let fields: Fields = fields.parse().map_err(|error| Wrong::new(format_args!("{error}")))?;
        let cron = Self {
            hours: fields.hours().iter().fold(0, |hours, hour| hours | 1 << hour),
            minutes: fields.minutes().iter().fold(0, |minutes, minute| minutes | 1 << minute),
            fields,
            every_hour: hour.starts_with('*'),
            days,
            weekdays,
            years: year.map_or(Ok(Vec::new()), |year| read_years(year))?,
        };
        // The calendar repeats itself after 400 years.
        let (from, to) = cron.span_of_years().unwrap_or((2000, 2399));
        if cron.first(date(from, 1, 1).into(), date(to + 1, 1, 1).into()).is_none() {
            let hint = "February has at most 29 days; April, June, September and November have 30";
            return Err(Wrong::new("it never fires: no date matches").hint(hint));
        }
        Ok(cron)
    }

    /// Whether every hour, or every n-th, is meant: it then follows elapsed time where clocks are changed.
    pub const fn is_every_hour(&self) -> bool {
        self.every_hour
    }

    /// The first minute that matches, from `from` on and before `before`.
    pub fn first(&self, from: DateTime, before: DateTime) -> Option<DateTime> {
        let (mut day, mut time) = (from.date(), from.time());
        let last_year = self.span_of_years().map(|(_, last)| last);
        loop {
            if last_year.is_some_and(|last| last < day.year()) {
                return None;
            }
            if let Some(time) = self.first_time(time) {
                let found = day.to_datetime(time);
                if found >= before {
                    return None;
                }
                if self.matches_day(day) {
                    return Some(found);
                }
            }
            time = Time::midnight();
            day = if !self.matches_year(day) {
                day.last_of_year().tomorrow()
            } else if !self.matches_month(day) {
                day.last_of_month().tomorrow()
            } else {
                day.tomorrow()
            }
            .ok()?;
            if day > before.date() {
                return None;
            }
        }
    }

    /// The first time of a day that matches, from `from` on.
    fn first_time(&self, from: Time) -> Option<Time> {
        let on_the_minute = from.second() == 0 && from.subsec_nanosecond() == 0;
        let from_minute = number(from.minute()) + u32::from(!on_the_minute);
        let from_hour = number(from.hour());
        let this_hour = (self.hours >> from_hour & 1 == 1).then(|| at_or_after(self.minutes, from_minute)).flatten();
        let (hour, minute) = match this_hour {
            Some(minute) => (from.hour(), minute),
            None => (at_or_after(self.hours.into(), from_hour + 1)?, at_or_after(self.minutes, 0)?),
        };
        Time::new(hour, minute, 0, 0).ok()
    }

    fn matches_year(&self, day: Date) -> bool {
        let year = day.year();
        self.years.is_empty()
            || self.years.iter().any(|(from, to, step)| (*from..=*to).contains(&year) && (year - from) % step == 0)
    }

    fn matches_month(&self, day: Date) -> bool {
        self.fields.months().includes(number(day.month()))
    }

    fn matches_day(&self, day: Date) -> bool {
        if !self.matches_year(day) || !self.matches_month(day) {
            return false;
        }
        let plain_day = self.days.plain && self.fields.days_of_month().includes(number(day.day()));
        let by_month = plain_day || self.days.matches(day);
        // Sunday is 1 there.
        let weekday = day.weekday().to_sunday_one_offset();
        let plain_weekday = self.weekdays.plain && self.fields.days_of_week().includes(number(weekday));
        let by_week = plain_weekday || self.weekdays.matches(day);
        if self.is_either_day() { by_month || by_week } else { by_month && by_week }
    }

    /// Whether a day of the month or a day of the week will do: where both are restricted, says crontab(5).
    pub(super) const fn is_either_day(&self) -> bool {
        !self.days.open && !self.weekdays.open
    }

    /// The first and the last year, where years are restricted.
    pub(super) fn span_of_years(&self) -> Option<(i16, i16)> {
        let from = self.years.iter().map(|years| years.0).min()?;
        Some((from, self.years.iter().map(|years| years.1).max()?))
    }
}

impl Days {
    /// Reads what is special in the field; what is plain comes back as text.
    fn read(text: &str, dialect: Dialect) -> Result<(Self, String), Wrong> {
        if text == "?" {
            return match dialect {
                Dialect::EventBridge => Ok((Self { open: true, plain: true, ..Self::default() }, "*".to_owned())),
                Dialect::Crontab => Err(DAY.no_question_mark()),
            };
        }
        let mut days = Self { open: text.starts_with('*'), ..Self::default() };
        let mut plain = Vec::new();
        for item in text.split(',') {
            let upper = item.to_ascii_uppercase();
            match upper.as_str() {
                "L" => days.before_last.push(0),
                "LW" | "WL" => days.last_working = true,
                upper => {
                    if let Some(before) = upper.strip_prefix("L-") {
                        let before = before.parse().ok().filter(|before| (1..=30).contains(before));
                        days.before_last.push(before.ok_or_else(|| DAY.wrong(item, "`L-1` to `L-30` are allowed"))?);
                    } else if let Some(near) = upper.strip_suffix('W') {
                        let near = near.parse().ok().filter(|near| (1..=31).contains(near));
                        days.near.push(near.ok_or_else(|| DAY.wrong(item, "`1W` to `31W` are allowed"))?);
                    } else {
                        plain.push(DAY.plain(item)?);
                    }
                }
            }
        }
        days.plain = !plain.is_empty();
        Ok((days, all_or(&plain)))
    }

    /// Whether `day` is special.
    fn matches(&self, day: Date) -> bool {
        let last = day.days_in_month();
        self.before_last.iter().any(|before| day.day() == last - before)
            || self.near.iter().any(|near| *near <= last && day.day() == working_day_near(day, *near))
            || self.last_working && day.day() == working_day_near(day, last)
    }
}

/// The day from Monday to Friday that is nearest to day `near` of the month of `month`, in that month.
fn working_day_near(month: Date, near: i8) -> i8 {
    let Ok(day) = Date::new(month.year(), month.month(), near) else { return near };
    match day.weekday() {
        Weekday::Saturday if near == 1 => 3,
        Weekday::Saturday => near - 1,
        Weekday::Sunday if near == month.days_in_month() => near - 2,
        Weekday::Sunday => near + 1,
        _ => near,
    }
}

impl Weekdays {
    /// Reads what is special in the field; what is plain comes back as text.
    fn read(text: &str, dialect: Dialect) -> Result<(Self, String), Wrong> {
        let field = dialect.weekday();
        if text == "?" {
            return match dialect {
                Dialect::EventBridge => Ok((Self { open: true, plain: true, ..Self::default() }, "*".to_owned())),
                Dialect::Crontab => Err(field.no_question_mark()),
            };
        }
        let mut weekdays = Self { open: text.starts_with('*'), ..Self::default() };
        let mut plain = Vec::new();
        for item in text.split(',') {
            let upper = item.to_ascii_uppercase();
            // Sunday first, whoever counts.
            let one = |text: &str| field.value(text, item).map(|day| i8::try_from((day - field.from) % 7).unwrap_or(0));
            if upper == "L" {
                match dialect {
                    Dialect::EventBridge => plain.push("SAT".to_owned()),
                    Dialect::Crontab => {
                        return Err(
                            Wrong::new("day-of-week `L` names no day").hint("write `FRIL` for the month's last Friday")
                        );
                    }
                }
            } else if let Some(day) = upper.strip_suffix('L') {
                weekdays.last.push(one(day)?);
            } else if let Some((day, nth)) = upper.split_once('#') {
                let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth));
                let nth = nth.ok_or_else(|| field.wrong(item, "a month has at most five of a weekday"))?;
                weekdays.nth.push((one(day)?, nth));
            } else {
                // By name: their numbers differ from one dialect to the next, and Sunday has two.
                let names = field.names.iter().cycle();
                let (from, to, step) = field.range(item)?;
                let days = names.zip(field.from..=to).filter(|(_, day)| *day >= from && (day - from) % step == 0);
                plain.extend(days.map(|(name, _)| (*name).to_owned()));
            }
        }
        weekdays.plain = !plain.is_empty();
        Ok((weekdays, all_or(&plain)))
    }

    /// Whether `day` is special.
    fn matches(&self, day: Date) -> bool {
        let weekday = day.weekday().to_sunday_zero_offset();
        self.last.contains(&weekday) && day.day() + 7 > day.days_in_month()
            || self.nth.iter().any(|(of, nth)| *of == weekday && (day.day() - 1) / 7 + 1 == *nth)
    }
}

/// A field of these items; `*` where there are none.
fn all_or(items: &[String]) -> String {
    if items.is_empty() { "*".to_owned() } else { items.join(",") }
}

/// The first number of `set`, which has a bit for each, that is not below `from`.
fn at_or_after(set: u64, from: u32) -> Option<i8> {
    let first = set.checked_shr(from).filter(|rest| *rest != 0)?.trailing_zeros();
    i8::try_from(from + first).ok()
}

fn number(value: i8) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

fn read_years(text: &str) -> Result<Vec<(i16, i16, i16)>, Wrong> {
    if text == "*" {
        return Ok(Vec::new());
    }
    text.split(',').map(|item| YEAR.range(item)).collect()
}

fn wrong_count(count: usize, dialect: Dialect) -> Wrong {
    let (wanted, year) = match dialect {
        Dialect::Crontab => (5, ""),
        Dialect::EventBridge => (6, ", year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    let wrong = Wrong::new(format_args!(
        "{count} field{plural}; {wanted} are needed: minute, hour, day-of-month, month, day-of-week{year}"
    ));
    if count == 6 { wrong.hint("seconds cannot be scheduled; leave the first field out") } else { wrong }
}

impl Field {
    /// A list as the `cron` crate is told it, every item by number.
    fn plain(&self, text: &str) -> Result<String, Wrong> {
        let items = text.split(',').map(|item| {
            Ok(match self.range(item)? {
                (from, to, step) if step > to - from => from.to_string(),
                (from, to, 1) => format!("{from}-{to}"),
                (from, to, step) => format!("{from}-{to}/{step}"),
            })
        });
        Ok(items.collect::<Result<Vec<_>, Wrong>>()?.join(","))
    }

    /// Reads `*`, `a`, `a-b`, each with `/step`: first, last and step.
    fn range(&self, item: &str) -> Result<(i16, i16, i16), Wrong> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => {
                let step = step.parse().ok().filter(|step| *step > 0);
                (range, Some(step.ok_or_else(|| self.wrong(item, "a step is 1 or more"))?))
            }
            None => (item, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.from, self.to),
            Some((from, to)) => (self.value(from, item)?, self.value(to, item)?),
            None => {
                let from = self.value(range, item)?;
                (from, if step.is_some() { self.to } else { from })
            }
        };
        // `SAT-SUN` ends with the Sunday that crontab counts as 7.
        let to = if to == 0 && from > 0 && self.to == 7 { 7 } else { to };
        if from > to {
            let wrong = Wrong::new(format_args!("{} {} runs backwards", self.name, quoted(range)));
            return Err(wrong.hint(format!("write `{from}-{},{}-{to}`", self.to, self.from)));
        }
        Ok((from, to, step.unwrap_or(1)))
    }

    fn value(&self, text: &str, item: &str) -> Result<i16, Wrong> {
        let by_name = self.names.iter().zip(self.from..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        let value = by_name.map(|(_, value)| value);
        let number = || text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        value.or_else(number).filter(|value| (self.from..=self.to).contains(value)).ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(" or `{first}` to `{last}`"),
                _ => String::new(),
            };
            self.wrong(item, &format!("{} to {}{names} are allowed", self.from, self.to))
        })
    }

    fn wrong(&self, item: &str, allowed: &str) -> Wrong {
        Wrong::new(format_args!("{} {}: {allowed}", self.name, quoted(item)))
    }

    fn no_question_mark(&self) -> Wrong {
        Wrong::new(format_args!("{} `?` is for `cron(…)` only", self.name)).hint("write `*`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str, year: i16, month: i8) -> Vec<i8> {
        let cron = Cron::read(text, Dialect::Crontab).unwrap();
        let last = date(year, month, 1).days_in_month();
        (1..=last).filter(|day| cron.matches_day(date(year, month, *day))).collect()
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        // August 2026 begins on a Saturday and ends on a Monday.
        assert_eq!(days("0 0 L * *", 2026, 8), [31]);
        assert_eq!(days("0 0 L-3 * *", 2026, 8), [28]);
        assert_eq!(days("0 0 1W * *", 2026, 8), [3]);
        assert_eq!(days("0 0 15W * *", 2026, 8), [14]);
        assert_eq!(days("0 0 16W * *", 2026, 8), [17]);
        assert_eq!(days("0 0 LW * *", 2026, 5), [29]);
        assert_eq!(days("0 0 * * TUE#2", 2026, 8), [11]);
        assert_eq!(days("0 0 * * 1L", 2026, 8), [31]);
        assert_eq!(days("0 0 * * 0", 2026, 8), days("0 0 * * 7", 2026, 8));
        assert_eq!(days("0 0 * * SAT-SUN", 2026, 8), [1, 2, 8, 9, 15, 16, 22, 23, 29, 30]);
        assert_eq!(days("0 0 29 2 *", 2028, 2), [29]);
    }

    #[test]
    fn day_of_month_and_day_of_week_together_mean_either() {
        assert_eq!(days("0 0 13 * FRI", 2026, 8), [7, 13, 14, 21, 28]);
        assert_eq!(days("0 0 */10 * SAT", 2026, 8), [1]);
    }

    #[test]
    fn eventbridge_counts_days_from_sunday_as_1() {
        let cron = Cron::read("15 10 ? * 6L 2026-2030", Dialect::EventBridge).unwrap();
        assert!(cron.matches_day(date(2026, 8, 28)));
        assert!(!cron.matches_day(date(2031, 8, 29)));
        let first = cron.first(date(2026, 8, 1).into(), date(2026, 9, 1).into());
        assert_eq!(first, Some(date(2026, 8, 28).at(10, 15, 0, 0)));
    }
}
