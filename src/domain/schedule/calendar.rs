//! STUB
use super::InvalidSchedule;
use crate::domain::id::JobName;
use crate::domain::job::Schedule;
use jiff::Timestamp;
/// c
#[derive(Debug, Clone)]
pub struct Calendar {
    period: i64,
    offset: i64,
}
/// f
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// a
    pub at: Timestamp,
    /// d
    pub due: Timestamp,
    /// b
    pub blackout: Option<usize>,
}
impl Calendar {
    /// n
    pub fn new(_job: &JobName, schedule: &Schedule) -> Result<Self, InvalidSchedule> {
        let _ = schedule;
        Ok(Self { period: 60, offset: 0 })
    }
    /// b
    pub fn between(&self, after: Timestamp, until: Timestamp, limit: usize) -> Vec<Firing> {
        let mut at = (after.as_second() - self.offset).div_euclid(self.period) * self.period + self.offset;
        let mut found = Vec::new();
        while at <= until.as_second() && found.len() < limit {
            let t = Timestamp::from_second(at).unwrap();
            if t > after && t <= until {
                found.push(Firing { at: t, due: t, blackout: None });
            }
            at += self.period;
        }
        found
    }
    /// x
    pub fn blackout(&self, _n: usize) -> Option<&str> {
        None
    }
}
