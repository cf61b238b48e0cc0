//! Quantities that people write: durations (`90s`, `1h30m`), sizes (`64KiB`), amounts (`5`, `10%`).
//!
//! Each parses what it displays, and displays the shortest form of what it parsed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a quantity was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {what}: {allowed}")]
pub struct InvalidQuantity {
    /// What was wanted, as `a duration`.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What is allowed.
    pub allowed: &'static str,
}

/// A span of time, to the millisecond: `500ms`, `90s`, `1h30m`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// A number of bytes: `512B`, `64KiB`, `1GiB`, `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

/// A number of hosts, or a share of them: `5` or `10%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Amount {
    /// This many.
    Count(u32),
    /// This many per cent, 0 to 100.
    Percent(u8),
}

impl Amount {
    /// How many of `total` this is, rounded up: a share of something is never nothing, unless it is 0.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(total),
            Self::Percent(percent) => {
                let exact = u64::from(total) * u64::from(percent);
                u32::try_from(exact.div_ceil(100)).unwrap_or(total)
            }
        }
    }
}

/// The longest span that is accepted: ten years of 365 days. Beyond it a typing mistake is likelier than a wish.
const MAX_SPAN_MILLIS: u64 = 3650 * 24 * 60 * 60 * 1000;

/// The largest count that is accepted: ten times the largest fleet that is planned for.
const MAX_COUNT: u32 = 1_000_000;

/// Units of time in milliseconds, the longest first.
const TIME_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size in bytes; of two forms of one length the earlier is displayed.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl InvalidQuantity {
    fn new(what: &'static str, found: &str, allowed: &'static str) -> Self {
        // A hostile text must not flood a terminal or a log line.
        let found = found.chars().filter(|c| !c.is_control()).take(80).collect();
        Self { what, found, allowed }
    }
}

/// Splits leading digits, at least one, from what follows them; `None` also where they exceed 64 bits.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, rest))
}

impl FromStr for Span {
    type Err = InvalidQuantity;

    /// Reads numbers with units, each unit at most once and the longer before the shorter; `0` needs none.
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let refuse = || {
            InvalidQuantity::new(
                "a duration",
                text,
                "whole numbers with `w`, `d`, `h`, `m`, `s` or `ms`, the longer units first, as `90s` or `1h30m`",
            )
        };
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let (mut rest, mut units, mut millis) = (text, TIME_UNITS.iter(), Some(0_u64));
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at_checked(digits).filter(|_| digits > 0).ok_or_else(refuse)?;
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at_checked(letters).ok_or_else(refuse)?;
            // The iterator only moves on: a unit that was passed over or used cannot come again.
            let (_, size) = units.find(|(name, _)| *name == unit).ok_or_else(refuse)?;
            let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*size));
            millis = millis.zip(part).and_then(|(sum, part)| sum.checked_add(part));
            rest = tail;
        }
        if text.is_empty() {
            return Err(refuse());
        }
        match millis.filter(|millis| *millis <= MAX_SPAN_MILLIS) {
            Some(millis) => Ok(Self(Duration::from_millis(millis))),
            None => Err(InvalidQuantity::new("an acceptable duration", text, "at most `3650d` (ten years)")),
        }
    }
}

impl fmt::Display for Span {
    /// Writes `1h30m`: no part that is zero, nothing longer than days (`30d`, not `4w2d`), nothing below milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        for (unit, size) in TIME_UNITS.into_iter().skip(1) {
            if rest >= size {
                text.push_str(&(rest / size).to_string());
                text.push_str(unit);
                rest %= size;
            }
        }
        f.pad(&text)
    }
}

impl FromStr for ByteSize {
    type Err = InvalidQuantity;

    /// Reads a whole number and its unit; without a unit it is bytes.
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let refuse = || {
            InvalidQuantity::new(
                "a size",
                text,
                "a whole number of bytes, or one with `B`, `KiB`, `MiB`, `GiB`, `TiB`, `KB`, `MB` or `GB`, as `64KiB`",
            )
        };
        let (number, unit) = split_number(text).ok_or_else(refuse)?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, size) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
        number.checked_mul(*size).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for ByteSize {
    /// Writes the shortest of the exact forms: `1GiB`, `10MB`, `1025B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS.iter().filter(|(_, size)| self.0 != 0 && self.0.is_multiple_of(*size));
        let shortest = exact.map(|(unit, size)| format!("{}{unit}", self.0 / size)).min_by_key(String::len);
        f.pad(shortest.as_deref().unwrap_or("0B"))
    }
}

impl FromStr for Amount {
    type Err = InvalidQuantity;

    /// Reads `5` or `10%`.
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let read = || match split_number(text)? {
            (number, "") => u32::try_from(number).ok().filter(|count| *count <= MAX_COUNT).map(Self::Count),
            (number, "%") => u8::try_from(number).ok().filter(|percent| *percent <= 100).map(Self::Percent),
            _ => None,
        };
        read().ok_or_else(|| {
            InvalidQuantity::new("an amount", text, "a whole number up to 1000000, or `0%` to `100%`, as `5` or `10%`")
        })
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => f.pad(&count.to_string()),
            Self::Percent(percent) => f.pad(&format!("{percent}%")),
        }
    }
}

macro_rules! as_text {
    ($($type:ident),*) => {$(
        impl TryFrom<String> for $type {
            type Error = InvalidQuantity;
            fn try_from(text: String) -> Result<Self, InvalidQuantity> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}
as_text!(Span, ByteSize, Amount);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown<T: FromStr<Err = InvalidQuantity> + fmt::Display>(text: &str) -> String {
        match text.parse::<T>() {
            Ok(value) => value.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn span_displays_the_canonical_form_of_what_it_parsed() {
        let cases = [
            ("0", "0s"),
            ("0ms", "0s"),
            ("500ms", "500ms"),
            ("1500ms", "1s500ms"),
            ("90s", "1m30s"),
            ("60m", "1h"),
            ("1h30m", "1h30m"),
            ("1h0m5s", "1h5s"),
            ("36h", "1d12h"),
            ("2w", "14d"),
            ("1w2d3h4m5s6ms", "9d3h4m5s6ms"),
            ("007s", "7s"),
            ("3650d", "3650d"),
        ];
        for (text, canonical) in cases {
            assert_eq!(shown::<Span>(text), canonical, "{text}");
        }
        assert_eq!("1h30m".parse(), Ok(Span(Duration::from_mins(90))));
    }

    #[test]
    fn span_that_is_no_duration_says_what_is_allowed() {
        for bad in ["", "5", "s", "-5s", "+5s", "1.5h", "5 s", "5S", "5m5", "1m1h", "1m1m", "1y", "٣s", "00"] {
            assert_eq!(
                shown::<Span>(bad),
                format!(
                    "`{bad}` is not a duration: whole numbers with `w`, `d`, `h`, `m`, `s` or `ms`, \
                     the longer units first, as `90s` or `1h30m`"
                )
            );
        }
    }

    #[test]
    fn span_beyond_ten_years_says_the_limit() {
        for long in ["3650d1ms", "99999999999999999999w", "18446744073709551615ms", "18446744073709551615s"] {
            assert_eq!(
                shown::<Span>(long),
                format!("`{long}` is not an acceptable duration: at most `3650d` (ten years)")
            );
        }
    }

    #[test]
    fn size_displays_the_shortest_form_of_what_it_parsed() {
        let cases = [
            ("0", "0B"),
            ("0GiB", "0B"),
            ("512", "512B"),
            ("1000", "1KB"),
            ("1024", "1KiB"),
            ("1025", "1025B"),
            ("65536B", "64KiB"),
            ("1024MiB", "1GiB"),
            ("10MB", "10MB"),
            ("1TiB", "1TiB"),
            ("18446744073709551615", "18446744073709551615B"),
        ];
        for (text, canonical) in cases {
            assert_eq!(shown::<ByteSize>(text), canonical, "{text}");
        }
    }

    #[test]
    fn size_that_is_none_says_what_is_allowed() {
        for bad in ["", "B", "1K", "1kb", "1 KiB", "-1", "+1", "1.5GiB", "16777216TiB", "18446744073709551616"] {
            assert_eq!(
                shown::<ByteSize>(bad),
                format!(
                    "`{bad}` is not a size: a whole number of bytes, or one with `B`, `KiB`, `MiB`, `GiB`, `TiB`, \
                     `KB`, `MB` or `GB`, as `64KiB`"
                )
            );
        }
    }

    #[test]
    fn amount_is_a_count_or_a_share() {
        assert_eq!("5".parse(), Ok(Amount::Count(5)));
        assert_eq!("0".parse(), Ok(Amount::Count(0)));
        assert_eq!("1000000".parse(), Ok(Amount::Count(1_000_000)));
        assert_eq!("0%".parse(), Ok(Amount::Percent(0)));
        assert_eq!("100%".parse(), Ok(Amount::Percent(100)));
        for bad in ["", "%", "-1", "+1", "1.5", "101%", "1000001", "5 %", "5%%", "10%5", "99999999999999999999"] {
            assert_eq!(
                shown::<Amount>(bad),
                format!("`{bad}` is not an amount: a whole number up to 1000000, or `0%` to `100%`, as `5` or `10%`")
            );
        }
    }

    #[test]
    fn amount_of_a_total_is_rounded_up_and_never_more_than_all() {
        assert_eq!(Amount::Percent(10).of(1), 1);
        assert_eq!(Amount::Percent(10).of(11), 2);
        assert_eq!(Amount::Percent(0).of(11), 0);
        assert_eq!(Amount::Percent(100).of(u32::MAX), u32::MAX);
        assert_eq!(Amount::Count(5).of(3), 3);
    }

    #[test]
    fn found_text_is_shortened_and_rid_of_control_characters() {
        let error = format!("\u{1b}[2J{}", "9".repeat(500)).parse::<Amount>().unwrap_err();
        assert_eq!(error.found, format!("[2J{}", "9".repeat(77)));
    }

    proptest! {
        #[test]
        fn span_round_trips(millis in 0..=MAX_SPAN_MILLIS) {
            let span = Span(Duration::from_millis(millis));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn size_round_trips(number in any::<u64>(), shift in 0_u32..64) {
            let size = ByteSize(number >> shift << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn amount_round_trips(count in 0..=MAX_COUNT, percent in 0_u8..=100) {
            for amount in [Amount::Count(count), Amount::Percent(percent)] {
                prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            }
        }

        #[test]
        fn arbitrary_text_never_panics_and_what_parses_round_trips(text in "\\PC*|[0-9]{0,21}[wdhmsKMGTiB%]{0,3}") {
            if let Ok(span) = text.parse::<Span>() {
                prop_assert_eq!(span.to_string().parse(), Ok(span));
            }
            if let Ok(size) = text.parse::<ByteSize>() {
                prop_assert_eq!(size.to_string().parse(), Ok(size));
            }
            if let Ok(amount) = text.parse::<Amount>() {
                prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            }
        }
    }
}
