//! When an object is looked at again: one table, one function.

use jiff::Timestamp;
use kube::runtime::controller::Action;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// All is as it should be, or waits for an edit.
    Converged,
    /// Something is waited for, with a time to look again at the latest.
    Until(Timestamp),
    /// Something that the object names is not there.
    Dependency,
    /// Somebody wrote the object in between.
    Conflict,
    /// It failed and may pass.
    Transient,
}

const RESYNC: Duration = Duration::from_secs(600);
const DEPENDENCY: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(300);

/// How long until the next pass. `failures`: how many passes in a row ended so, this one included; `random`: from 0 to 1.
pub fn pause(case: Case, failures: u32, now: Timestamp, random: f64) -> Duration {
    let spread = |base: Duration, part: f64| base.mul_f64(1.0 - part + 2.0 * part * random);
    match case {
        Case::Converged => spread(RESYNC, 0.1),
        Case::Until(until) => Duration::try_from(until.duration_since(now)).unwrap_or_default().min(RESYNC),
        Case::Dependency => DEPENDENCY,
        Case::Conflict if failures < 3 => Duration::ZERO,
        Case::Conflict | Case::Transient => {
            let doublings = failures.saturating_sub(1).min(9);
            spread(Duration::from_secs(1 << doublings).min(LONGEST), 0.2)
        }
    }
}

/// Failures in a row, for each object.
#[derive(Default)]
pub struct Retries(Mutex<HashMap<String, u32>>);

impl Retries {
    /// The next pass over the object `key` after one that ended so.
    pub fn after(&self, key: &str, case: Case) -> Action {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match case {
            Case::Converged | Case::Until(_) | Case::Dependency => {
                failures.remove(key);
                0
            }
            Case::Conflict | Case::Transient => {
                let count = failures.entry(key.to_owned()).or_default();
                *count = count.saturating_add(1);
                *count
            }
        };
        Action::requeue(pause(case, count, Timestamp::now(), random()))
    }
}

/// A number from 0 to 1, for spreading passes: of no other use.
pub fn random() -> f64 {
    f64::from(RandomState::new().hash_one(0u8) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_up_to_five_minutes_and_conflicts_begin_at_once() {
        let after = |case, failures| pause(case, failures, Timestamp::UNIX_EPOCH, 0.5).as_secs_f64();
        assert_eq!(
            [1, 2, 3, 9, 10, 99].map(|n| after(Case::Transient, n).round()),
            [1.0, 2.0, 4.0, 256.0, 300.0, 300.0]
        );
        assert_eq!([1, 2].map(|n| after(Case::Conflict, n)), [0.0, 0.0]);
        assert_eq!(after(Case::Conflict, 3).round(), 4.0);
    }

    #[test]
    fn a_time_that_has_passed_is_now() {
        assert_eq!(pause(Case::Until(Timestamp::MIN), 0, Timestamp::UNIX_EPOCH, 0.0), Duration::ZERO);
    }
}
