//! When an object is looked at again: one table, one function.

use jiff::Timestamp;
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
    /// The API server did not answer: no fault of the object's.
    Away,
    /// It failed and may pass.
    Transient,
}

const RESYNC: Duration = Duration::from_secs(600);
const DEPENDENCY: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(300);
/// However long the API server was away, what waits for it is tried this soon once it is back.
const LONGEST_AWAY: Duration = Duration::from_secs(15);

/// How long until the next pass. `failures`: how many passes in a row ended so, this one included; `random`: from 0 to 1.
pub fn pause(case: Case, failures: u32, now: Timestamp, random: f64) -> Duration {
    let spread = |base: Duration, part: f64| base.mul_f64(1.0 - part + 2.0 * part * random);
    let doubled = |failures: u32, longest: Duration| {
        let doublings = failures.saturating_sub(1).min(9);
        spread(Duration::from_secs(1 << doublings).min(longest), 0.2)
    };
    match case {
        Case::Converged => spread(RESYNC, 0.1),
        Case::Until(until) => Duration::try_from(until.duration_since(now)).unwrap_or_default().min(RESYNC),
        Case::Dependency => DEPENDENCY,
        Case::Conflict if failures < 3 => Duration::ZERO,
        Case::Away => doubled(failures, LONGEST_AWAY),
        Case::Conflict | Case::Transient => doubled(failures, LONGEST),
    }
}

/// Failures in a row that were of one case, for each object.
#[derive(Default)]
pub struct Retries(Mutex<HashMap<String, (Case, u32)>>);

impl Retries {
    /// How long until the next pass over the object `key` after one that ended so.
    pub fn after(&self, key: &str, case: Case) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match case {
            Case::Converged | Case::Until(_) | Case::Dependency => {
                failures.remove(key);
                0
            }
            Case::Conflict | Case::Away | Case::Transient => {
                let before = failures.get(key).filter(|(of, _)| *of == case).map_or(0, |(_, count)| *count);
                let count = before.saturating_add(1);
                failures.insert(key.to_owned(), (case, count));
                count
            }
        };
        pause(case, count, Timestamp::now(), random())
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
    fn an_api_server_that_was_away_for_five_minutes_makes_nothing_wait_for_five_more() {
        let retries = Retries::default();
        let mut away = Duration::ZERO;
        while away < Duration::from_secs(300) {
            let pause = retries.after("v", Case::Away);
            assert!(pause < Duration::from_secs(20), "{pause:?} after {away:?}");
            away += pause;
        }
        // It is back, and still too busy for the first pass.
        assert!(retries.after("v", Case::Transient) < Duration::from_secs(2));
    }

    #[test]
    fn a_time_that_has_passed_is_now() {
        assert_eq!(pause(Case::Until(Timestamp::MIN), 0, Timestamp::UNIX_EPOCH, 0.0), Duration::ZERO);
    }
}
