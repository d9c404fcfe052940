//! States that may pass by themselves in a moment: one that does not last two seconds is not written. No I/O.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A state that lasts as long as this is told.
const LASTS: Duration = Duration::from_secs(2);
/// What nobody asked after for so long was of an object that is gone.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Since when each object has been in such a state, by its uid.
#[derive(Default)]
pub struct Passing(Mutex<HashMap<String, Instant>>);

impl Passing {
    /// How long to wait before the object's state is told; `None`: it is told now. `may_pass`: it may pass, and nobody was told yet.
    pub fn hold(&self, uid: &str, may_pass: bool, now: Instant) -> Option<Duration> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|_, at| now.saturating_duration_since(*at) < FORGOTTEN);
        if !may_pass {
            since.remove(uid);
            return None;
        }
        let begun = *since.entry(uid.to_owned()).or_insert(now);
        LASTS.checked_sub(now.saturating_duration_since(begun)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_may_pass_is_told_once_it_has_lasted() {
        let (passing, start) = (Passing::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(passing.hold("u", true, at(0)), Some(LASTS));
        assert_eq!(passing.hold("u", true, at(1500)), Some(Duration::from_millis(500)));
        assert_eq!(passing.hold("other", true, at(1900)), Some(LASTS));
        assert_eq!(passing.hold("u", true, at(2000)), None);
    }

    #[test]
    fn what_passed_begins_anew() {
        let (passing, start) = (Passing::default(), Instant::now());
        assert_eq!(passing.hold("u", true, start), Some(LASTS));
        assert_eq!(passing.hold("u", false, start), None);
        assert_eq!(passing.hold("u", true, start + LASTS), Some(LASTS));
    }
}
