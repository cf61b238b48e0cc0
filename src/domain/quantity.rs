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

macro_rules! stub_text {
    ($type:ident) => {
        impl FromStr for $type {
            type Err = InvalidQuantity;
            fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
                Err(InvalidQuantity { what: "implemented", found: text.to_owned(), allowed: "" })
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self:?}")
            }
        }
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
    };
}
stub_text!(Span);
stub_text!(ByteSize);
stub_text!(Amount);
