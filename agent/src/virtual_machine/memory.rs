//! What this agent remembers of a domain's starts and stops. It may be lost: then a pause is forgotten, nothing else.

use jiff::{SignedDuration, Timestamp};
use plan::virtual_machine::Failures;
use std::collections::BTreeMap;

/// Of one domain.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Failures in a row.
    pub failures: Failures,
    /// When its guest was last asked to shut down.
    pub asked: Option<Timestamp>,
    /// When its guest was last asked to let go of a disk, by the disk's name.
    pub detaching: BTreeMap<String, Timestamp>,
    started: Option<Timestamp>,
}

/// A guest that ran this long is sound.
const SOUND: SignedDuration = SignedDuration::from_mins(10);

impl Memory {
    /// A start was tried.
    pub fn tried(&mut self, ok: bool, now: Timestamp) {
        self.asked = None;
        self.detaching.clear();
        if ok {
            self.started = Some(now);
        } else {
            self.fail(now);
        }
    }

    /// It is off by a failure; counts once a start.
    pub fn died(&mut self, now: Timestamp) {
        if let Some(started) = self.started.take() {
            if now.duration_since(started) > SOUND {
                self.failures = Failures::default();
            }
            self.fail(now);
        }
    }

    fn fail(&mut self, now: Timestamp) {
        self.failures = Failures { count: self.failures.count.saturating_add(1), last: Some(now) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_death_counts_once_and_a_long_life_forgives() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut memory = Memory::default();
        memory.tried(false, at(0));
        memory.tried(true, at(10));
        memory.died(at(20));
        memory.died(at(21));
        assert_eq!(memory.failures, Failures { count: 2, last: Some(at(20)) });
        memory.tried(true, at(30));
        memory.died(at(3000));
        assert_eq!(memory.failures.count, 1);
    }
}
