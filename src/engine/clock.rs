//! The one place where the engine reads the time and rolls dice.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::domain::cursor::LEAP;

/// What is further ahead than this was written by a clock that was wrong, and is not believed.
///
/// Longer than any change of a clock for the sake of daylight or time zones.
pub(super) const AHEAD: SignedDuration = LEAP;

/// Tells the time.
#[derive(Debug, Clone, Copy, Default)]
pub enum Clock {
    /// As the system does.
    #[default]
    System,
    /// As a simulation does.
    Simulated(Simulated),
}

/// Time that passes as tokio's does, which tests can pause and move, with an error of its own.
#[derive(Debug, Clone, Copy)]
pub struct Simulated {
    /// What it was at `since`.
    pub epoch: Timestamp,
    /// When it began.
    pub since: Instant,
    /// How far this clock is ahead of true time.
    pub ahead: SignedDuration,
}

impl Clock {
    /// This instant, to the millisecond: what documents hold.
    pub fn now(self) -> Timestamp {
        let now = match self {
            Self::System => system(),
            Self::Simulated(it) => {
                let passed = SignedDuration::try_from(it.since.elapsed()).unwrap_or(SignedDuration::MAX);
                it.epoch.checked_add(passed.saturating_add(it.ahead)).unwrap_or(Timestamp::MAX)
            }
        };
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn system() -> Timestamp {
    Timestamp::now()
}

/// 128 random bits.
///
/// # Errors
/// Where the system has no random numbers to give.
pub fn random() -> Result<[u8; 16], getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// 128 random bits in hexadecimal: names a claim or a request, and no other.
///
/// # Errors
/// Where the system has no random numbers to give.
pub fn nonce() -> Result<String, getrandom::Error> {
    random().map(|bytes| format!("{:032x}", u128::from_be_bytes(bytes)))
}
