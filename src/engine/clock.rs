//! The one place where the engine reads the time and rolls dice.

use jiff::Timestamp;

/// Tells the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    /// This instant, to the millisecond: what documents hold.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn now(self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }
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
