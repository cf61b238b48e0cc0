//! Expressions in plain English: `30 2 * * 1-5` is "at 02:30 on Monday to Friday".

use std::time::Duration;

use cron::TimeUnitSpec;

use super::Expression;
use super::cron::Cron;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ORDINALS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// The most times of day that are told one by one; more are told by hours and minutes.
const MAX_TIMES: usize = 6;

/// Says when `expression` fires.
pub fn say(expression: &Expression) -> String {
    match expression {
        Expression::Cron(cron) => say_cron(cron),
        Expression::Rate(period) => say_rate(*period),
        Expression::At(time) => {
            let precisely = if time.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
            format!("once, on {} at {}", time.date(), time.strftime(precisely))
        }
    }
}

fn say_rate(period: Duration) -> String {
    let seconds = period.as_secs();
    let (count, unit) = match seconds {
        seconds if seconds % 86_400 == 0 => (seconds / 86_400, "day"),
        seconds if seconds % 3600 == 0 => (seconds / 3600, "hour"),
        seconds => (seconds / 60, "minute"),
    };
    // More than a day is aligned to a day that nobody sees.
    let since = if seconds > 86_400 { ", counted from 1970-01-01" } else { "" };
    format!("{}{since}", every(count, unit))
}

fn say_cron(cron: &Cron) -> String {
    let mut said = say_time(cron);
    let days = say_days(cron);
    match &days {
        // That it is every day goes without saying where it is every so often.
        None if said.starts_with("every") => {}
        None => said.push_str(" every day"),
        Some(days) => {
            said.push_str(" on ");
            said.push_str(days);
        }
    }
    if let Some(months) = restricted(cron.fields.months()) {
        said.push_str(" in ");
        said.push_str(&listed(&months, |month| nth(&MONTHS, month.saturating_sub(1))));
    }
    let years = cron.years.iter().map(|&(from, to, step)| match step {
        _ if step > to - from => from.to_string(),
        1 => format!("{from} to {to}"),
        step => format!("{from} to {to} in steps of {step}"),
    });
    let years: Vec<String> = years.collect();
    if !years.is_empty() {
        said.push_str(" in ");
        said.push_str(&joined(&years));
    }
    said
}

fn say_time(cron: &Cron) -> String {
    let minutes: Vec<u32> = cron.fields.minutes().iter().collect();
    let hours: Vec<u32> = cron.fields.hours().iter().collect();
    let (minute_step, hour_step) = (whole_step(&minutes, 60), whole_step(&hours, 24));
    let time = |hour: &u32, minute: &u32| format!("{hour:02}:{minute:02}");
    let number = |value: u32| value.to_string();
    let only_minute = if let [minute] = &minutes[..] { Some(minute) } else { None };
    match (minute_step, hour_step, only_minute) {
        (Some(step), Some(1), _) => every(step, "minute"),
        (_, Some(step), Some(0)) => every(step, "hour"),
        (_, Some(step), _) => {
            let hours = if step == 1 { "every hour".to_owned() } else { format!("every {step} hours") };
            format!("{hours}, at {}", counted("minute", &minutes, number))
        }
        (Some(step), None, _) => format!("{} of {}", every(step, "minute"), counted("hour", &hours, number)),
        _ if minutes.len() * hours.len() <= MAX_TIMES => {
            let times = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| time(hour, minute)));
            format!("at {}", joined(&times.collect::<Vec<_>>()))
        }
        _ => format!("at {} of {}", counted("minute", &minutes, number), counted("hour", &hours, number)),
    }
}

/// The days on which it fires; none where that is every day.
fn say_days(cron: &Cron) -> Option<String> {
    let mut of_month = Vec::new();
    if cron.days.plain
        && let Some(days) = restricted(cron.fields.days_of_month())
    {
        of_month.push(format!("{} of the month", counted("day", &days, |day| day.to_string())));
    }
    of_month.extend(cron.days.before_last.iter().map(|before| match before {
        0 => "the last day of the month".to_owned(),
        1 => "the day before the last of the month".to_owned(),
        days => format!("the day {days} days before the last of the month"),
    }));
    of_month.extend(cron.days.near.iter().map(|day| format!("the working day nearest to day {day} of the month")));
    if cron.days.last_working {
        of_month.push("the last working day of the month".to_owned());
    }
    let mut of_week = Vec::new();
    if cron.weekdays.plain
        && let Some(days) = restricted(cron.fields.days_of_week())
    {
        of_week.push(listed(&days, |day| nth(&WEEKDAYS, day.saturating_sub(1))));
    }
    let weekday = |day: i8| nth(&WEEKDAYS, u32::try_from(day).unwrap_or_default());
    of_week.extend(cron.weekdays.nth.iter().map(|&(day, n)| {
        let n = nth(&ORDINALS, u32::try_from(n - 1).unwrap_or_default());
        format!("the {n} {} of the month", weekday(day))
    }));
    of_week.extend(cron.weekdays.last.iter().map(|&day| format!("the last {} of the month", weekday(day))));
    match (of_month.is_empty(), of_week.is_empty()) {
        (true, true) => None,
        (false, true) => Some(joined(&of_month)),
        (true, false) => Some(joined(&of_week)),
        (false, false) if cron.is_either_day() => Some(format!("{} or on {}", joined(&of_month), joined(&of_week))),
        (false, false) => Some(format!("{}, if that is {}", joined(&of_month), joined(&of_week))),
    }
}

/// The values of a field; none where it is all of them.
fn restricted(field: &impl TimeUnitSpec) -> Option<Vec<u32>> {
    (!field.is_all()).then(|| field.iter().collect())
}

/// `every minute`, `every 5 minutes`.
fn every(count: u64, unit: &str) -> String {
    if count == 1 { format!("every {unit}") } else { format!("every {count} {unit}s") }
}

/// The step by which `values` go round evenly: from 0, and with the same step from the last to the next 0.
fn whole_step(values: &[u32], all: u32) -> Option<u64> {
    let count = u32::try_from(values.len()).ok()?;
    let step = all.checked_div(count).filter(|step| step * count == all && count > 1)?;
    values.iter().zip(0..).all(|(value, index)| *value == step * index).then_some(u64::from(step))
}

/// `day 1`, `days 1 and 15`.
fn counted(unit: &str, values: &[u32], say: impl Fn(u32) -> String) -> String {
    let plural = if values.len() == 1 { "" } else { "s" };
    format!("{unit}{plural} {}", listed(values, say))
}

/// `1, 5 and 10 to 15`; four and more with one step are `1 to 59 in steps of 2`.
fn listed(values: &[u32], say: impl Fn(u32) -> String) -> String {
    if let [first, second, .., last] = values
        && let step = second - first
        && step > 1
        && values.len() > 3
        && values.windows(2).all(|pair| matches!(pair, [one, next] if next - one == step))
    {
        return format!("{} to {} in steps of {step}", say(*first), say(*last));
    }
    let stretches = values.chunk_by(|one, next| one + 1 == *next).flat_map(|stretch| match stretch {
        [first, _, .., last] if stretch.len() > 2 => vec![format!("{} to {}", say(*first), say(*last))],
        few => few.iter().map(|value| say(*value)).collect(),
    });
    joined(&stretches.collect::<Vec<_>>())
}

/// `a, b and c`.
fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn nth(names: &[&str], index: u32) -> String {
    usize::try_from(index).ok().and_then(|index| names.get(index)).map(|&name| name.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_read_like_english() {
        let cases = [
            ("* * * * *", "every minute"),
            ("*/15 * * * *", "every 15 minutes"),
            ("0 * * * *", "every hour"),
            ("5 * * * *", "every hour, at minute 5"),
            ("5,35 * * * *", "every hour, at minutes 5 and 35"),
            ("*/7 * * * *", "every hour, at minutes 0 to 56 in steps of 7"),
            ("0 */6 * * *", "every 6 hours"),
            ("30 */6 * * MON", "every 6 hours, at minute 30 on Monday"),
            ("*/20 9-17 * * 1-5", "every 20 minutes of hours 9 to 17 on Monday to Friday"),
            ("30 2 * * *", "at 02:30 every day"),
            ("30 2 * * 1-5", "at 02:30 on Monday to Friday"),
            ("0 9,12,17 * * SAT,SUN", "at 09:00, 12:00 and 17:00 on Sunday and Saturday"),
            ("0,30 9-17 * * *", "at minutes 0 and 30 of hours 9 to 17 every day"),
            ("0 0 1,15 * *", "at 00:00 on days 1 and 15 of the month"),
            ("0 0 1 1 *", "at 00:00 on day 1 of the month in January"),
            ("0 0 13 * FRI", "at 00:00 on day 13 of the month or on Friday"),
            ("0 0 */10 * SUN", "at 00:00 on days 1 to 31 in steps of 10 of the month, if that is Sunday"),
            ("0 0 L * *", "at 00:00 on the last day of the month"),
            (
                "0 0 L-1,L-3 * *",
                "at 00:00 on the day before the last of the month and the day 3 days before the last of the month",
            ),
            (
                "0 0 15W,LW * *",
                "at 00:00 on the working day nearest to day 15 of the month and the last working day of the month",
            ),
            ("0 0 * * TUE#2,5L", "at 00:00 on the second Tuesday of the month and the last Friday of the month"),
            ("0 0 * 1-3,6,7 *", "at 00:00 every day in January to March, June and July"),
            ("@weekly", "at 00:00 on Sunday"),
            ("cron(15 10 ? * 6L 2026-2030)", "at 10:15 on the last Friday of the month in 2026 to 2030"),
            ("cron(0 8 1 * ? 2027,2030/2)", "at 08:00 on day 1 of the month in 2027 and 2030 to 2199 in steps of 2"),
            ("rate(1 minute)", "every minute"),
            ("rate(90 minutes)", "every 90 minutes"),
            ("rate(24 hours)", "every day"),
            ("rate(7 days)", "every 7 days, counted from 1970-01-01"),
            ("at(2026-11-20T13:00:00)", "once, on 2026-11-20 at 13:00"),
            ("at(2026-11-20T13:00:15)", "once, on 2026-11-20 at 13:00:15"),
        ];
        for (text, english) in cases {
            assert_eq!(say(&text.parse().unwrap()), english, "{text}");
        }
    }
}
