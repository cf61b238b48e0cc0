//! How far a connection got, and when.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Stage;

/// The steps that a connection has passed, in order.
#[derive(Debug)]
pub struct Steps {
    begun: Instant,
    passed: Mutex<Vec<(Stage, Instant)>>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { begun: Instant::now(), passed: Mutex::default() }
    }
}

impl Steps {
    /// Notes that `stage` has been passed.
    pub fn mark(&self, stage: Stage) {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).push((stage, Instant::now()));
    }

    /// The last that has been passed.
    pub(super) fn last(&self) -> Option<Stage> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).last().map(|(stage, _)| *stage)
    }

    /// What has been passed, and how long each step took.
    pub fn taken(&self) -> Vec<(Stage, Duration)> {
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = self.begun;
        let step = |(stage, at): &(Stage, Instant)| (*stage, at.duration_since(std::mem::replace(&mut before, *at)));
        passed.iter().map(step).collect()
    }
}
