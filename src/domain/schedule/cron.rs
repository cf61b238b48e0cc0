//! Calendar patterns: which minutes of which days.
//!
//! Sources: crontab(5); `EventBridge` Scheduler User Guide, cron-based schedules.

use jiff::civil::{Date, Weekday, date};

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
    /// Its minutes, one bit each.
    minutes: u64,
    /// Its hours, one bit each.
    hours: u64,
    /// Whether every hour, or every n-th, is meant: it then follows elapsed time where clocks are changed.
    every_hour: bool,
    days: Days,
    months: u64,
    weekdays: Weekdays,
    /// First and last year and the step of each range; none means every year.
    years: Vec<(i16, i16, i16)>,
}

/// The days of a month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Days {
    /// Written as `*`, `*/n` or `?`: the weekdays decide too, or alone.
    open: bool,
    /// One bit for each day.
    plain: u64,
    /// So many days before the last.
    before_last: Vec<i8>,
    /// The weekday (Monday to Friday) nearest to this day, in the same month.
    near: Vec<i8>,
    /// The last weekday (Monday to Friday).
    last_working: bool,
}

/// The days of a week, Sunday being 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Weekdays {
    /// Written as `*`, `*/n` or `?`: the days of the month decide too, or alone.
    open: bool,
    /// One bit for each day.
    plain: u64,
    /// The last one of the month.
    last: u64,
    /// The n-th one of the month: day and n.
    nth: Vec<(i8, i8)>,
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
        let cron = Self {
            minutes: MINUTE.mask(minute)?,
            hours: HOUR.mask(hour)?,
            every_hour: hour.starts_with('*'),
            days: Days::read(day, dialect)?,
            months: MONTH.mask(month)?,
            weekdays: Weekdays::read(weekday, dialect)?,
            years: year.map_or(Ok(Vec::new()), |year| read_years(year))?,
        };
        if !cron.can_fire() {
            let hint = "February has at most 29 days; April, June, September and November have 30";
            return Err(Wrong::new("it never fires: no date matches").hint(hint));
        }
        Ok(cron)
    }

    /// Whether every hour, or every n-th, is meant: it then follows elapsed time where clocks are changed.
    pub const fn is_every_hour(&self) -> bool {
        self.every_hour
    }

    /// Whether it fires at `hour`:`minute` of the days that it matches.
    pub fn matches_time(&self, hour: i8, minute: i8) -> bool {
        has(self.hours, hour) && has(self.minutes, minute)
    }

    /// Whether it fires on `day`.
    pub fn matches_day(&self, day: Date) -> bool {
        let year = day.year();
        let year_matches = self.years.is_empty()
            || self.years.iter().any(|(from, to, step)| (*from..=*to).contains(&year) && (year - from) % step == 0);
        if !year_matches || !has(self.months, day.month()) {
            return false;
        }
        let (by_month, by_week) = (self.days.matches(day), self.weekdays.matches(day));
        // crontab(5): where both are restricted, either will do.
        if self.days.open || self.weekdays.open { by_month && by_week } else { by_month || by_week }
    }

    /// Whether any day matches: the calendar repeats itself after 400 years.
    fn can_fire(&self) -> bool {
        let from = self.years.iter().map(|years| years.0).min().unwrap_or(2000);
        let to = self.years.iter().map(|years| years.1).max().unwrap_or(2399);
        date(from, 1, 1)
            .series(jiff::Span::new().days(1))
            .take_while(|day| day.year() <= to)
            .any(|day| self.matches_day(day))
    }
}

impl Days {
    fn read(text: &str, dialect: Dialect) -> Result<Self, Wrong> {
        if text == "?" {
            return match dialect {
                Dialect::EventBridge => Ok(Self { open: true, plain: DAY.mask("*")?, ..Self::default() }),
                Dialect::Crontab => Err(DAY.no_question_mark()),
            };
        }
        let mut days = Self { open: text.starts_with('*'), ..Self::default() };
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
                        days.plain |= DAY.mask(item)?;
                    }
                }
            }
        }
        Ok(days)
    }

    fn matches(&self, day: Date) -> bool {
        let last = day.days_in_month();
        has(self.plain, day.day())
            || self.before_last.iter().any(|before| day.day() == last - before)
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
    fn read(text: &str, dialect: Dialect) -> Result<Self, Wrong> {
        let field = dialect.weekday();
        if text == "?" {
            return match dialect {
                Dialect::EventBridge => Ok(Self { open: true, plain: 0x7f, ..Self::default() }),
                Dialect::Crontab => Err(field.no_question_mark()),
            };
        }
        let mut weekdays = Self { open: text.starts_with('*'), ..Self::default() };
        for item in text.split(',') {
            let upper = item.to_ascii_uppercase();
            // Sunday first, whoever counts.
            let one = |text: &str| field.value(text, item).map(|day| (day - field.from) % 7);
            if upper == "L" {
                match dialect {
                    Dialect::EventBridge => weekdays.plain |= 1 << 6,
                    Dialect::Crontab => {
                        return Err(
                            Wrong::new("day-of-week `L` names no day").hint("write `FRIL` for the month's last Friday")
                        );
                    }
                }
            } else if let Some(day) = upper.strip_suffix('L') {
                weekdays.last |= 1 << one(day)?;
            } else if let Some((day, nth)) = upper.split_once('#') {
                let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth));
                let nth = nth.ok_or_else(|| field.wrong(item, "a month has at most five of a weekday"))?;
                weekdays.nth.push((i8::try_from(one(day)?).unwrap_or_default(), nth));
            } else {
                for day in field.values(item)? {
                    weekdays.plain |= 1 << ((day - field.from) % 7);
                }
            }
        }
        Ok(weekdays)
    }

    fn matches(&self, day: Date) -> bool {
        let weekday = day.weekday().to_sunday_zero_offset();
        has(self.plain, weekday)
            || has(self.last, weekday) && day.day() + 7 > day.days_in_month()
            || self.nth.iter().any(|(of, nth)| *of == weekday && (day.day() - 1) / 7 + 1 == *nth)
    }
}

fn has(mask: u64, bit: i8) -> bool {
    u32::try_from(bit).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
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
    /// The bits of all values of a list. Days of the week need another reading, where Sunday has two numbers.
    fn mask(&self, text: &str) -> Result<u64, Wrong> {
        let mut mask = 0;
        for item in text.split(',') {
            for value in self.values(item)? {
                mask |= 1 << value;
            }
        }
        Ok(mask)
    }

    fn values(&self, item: &str) -> Result<impl Iterator<Item = i16>, Wrong> {
        let (from, to, step) = self.range(item)?;
        Ok((from..=to).step_by(usize::try_from(step).unwrap_or(1)))
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
        assert!(cron.matches_day(date(2026, 8, 28)) && cron.matches_time(10, 15));
        assert!(!cron.matches_day(date(2031, 8, 29)) && !cron.matches_time(10, 16));
    }
}
