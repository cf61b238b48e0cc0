//! Local times in which nothing fires.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};

use super::{InvalidSchedule, local_time};
use crate::domain::diagnostic::quoted;

/// A range of local times in which nothing fires: `2026-12-24/2026-12-26` or `2026-12-24T18:00/2026-12-25T06:00`.
///
/// A date counts whole, on either side; a time ends the range and is outside of it. An hour that is repeated when
/// clocks are changed is in the range twice or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blackout {
    written: String,
    from: DateTime,
    /// The first moment outside.
    to: DateTime,
}

impl Blackout {
    /// Whether `local` is in the range.
    pub fn contains(&self, local: DateTime) -> bool {
        self.from <= local && local < self.to
    }

    /// The first local time after the range.
    pub const fn end(&self) -> DateTime {
        self.to
    }

    /// The range as it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl FromStr for Blackout {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let refused = |why| InvalidSchedule {
            message: format!("{} {why}", quoted(text)),
            hint: Some("write `2026-12-24/2026-12-26` or `2026-12-24T18:00/2026-12-25T06:00`".to_owned()),
        };
        let range = text.split_once('/').and_then(|(from, to)| {
            let to = match date(to) {
                Some(to) => to.tomorrow().ok()?.into(),
                None => local_time(to)?,
            };
            Some((date(from).map(DateTime::from).or_else(|| local_time(from))?, to))
        });
        let (from, to) = range.ok_or_else(|| refused("is not a range of dates or times"))?;
        if from >= to {
            return Err(refused("ends before it begins"));
        }
        Ok(Self { written: text.to_owned(), from, to })
    }
}

/// Reads `yyyy-mm-dd`; of anything longer, its time would be lost.
fn date(text: &str) -> Option<Date> {
    text.parse().ok().filter(|_| text.len() == "yyyy-mm-dd".len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_whole_and_times_to_the_second() {
        let cases = [
            (
                "2026-12-24/2026-12-26",
                "2026-12-24T00:00",
                "2026-12-26T23:59:59",
                "2026-12-23T23:59",
                "2026-12-27T00:00",
            ),
            (
                "2026-12-24/2026-12-24",
                "2026-12-24T00:00",
                "2026-12-24T23:59:59",
                "2026-12-23T23:59",
                "2026-12-25T00:00",
            ),
            (
                "2026-12-24T18:00/2026-12-25",
                "2026-12-24T18:00",
                "2026-12-25T23:59",
                "2026-12-24T17:59",
                "2026-12-26T00:00",
            ),
            (
                "2026-12-24T18:00/2026-12-25T06:00",
                "2026-12-24T18:00",
                "2026-12-25T05:59",
                "2026-12-24T17:59",
                "2026-12-25T06:00",
            ),
        ];
        for (range, first, last, before, after) in cases {
            let blackout: Blackout = range.parse().unwrap();
            let contains = |text: &str| blackout.contains(text.parse().unwrap());
            assert_eq!([first, last, before, after].map(contains), [true, true, false, false], "{range}");
            assert_eq!(blackout.as_str(), range);
        }
    }

    #[test]
    fn range_that_is_none_is_refused() {
        let refused = |text: &str| text.parse::<Blackout>().unwrap_err().to_string();
        for text in ["", "/", "2026-12-24", "2026-12-24/", "christmas/2026-12-26", "2026-12-24T18:00Z/2026-12-25"] {
            assert_eq!(refused(text), format!("`{text}` is not a range of dates or times"));
        }
        // A zone of its own would be read past, and the job's meant.
        let zoned = "2026-12-24T18:00+09:00/2026-12-25";
        assert_eq!(refused(zoned), format!("`{zoned}` is not a range of dates or times"));
        for text in ["2026-12-26/2026-12-24", "2026-12-24T18:00/2026-12-24T18:00"] {
            assert_eq!(refused(text), format!("`{text}` ends before it begins"));
        }
    }
}
