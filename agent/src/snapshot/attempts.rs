//! What this agent tries for snapshots, and how it ended. It may be lost: then something is tried again at once, nothing else.

use crate::context::Shared;
use jiff::{SignedDuration, Timestamp};
use plan::snapshot::Attempt;
use std::collections::BTreeMap;

/// What was tried, and what came in its way.
#[derive(Default)]
pub struct Attempts {
    /// By the snapshot's UID.
    all: Shared<BTreeMap<String, Entry>>,
    /// By the domain's UUID: in which of its runs QEMU has which blank overlay open.
    held: Shared<BTreeMap<String, (u32, String)>>,
}

struct Entry {
    machine: (String, String),
    name: String,
    last: Attempt,
    failures: u32,
}

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);

impl Attempts {
    /// What was tried last.
    pub fn of(&self, uid: &str) -> Attempt {
        self.all.lock().get(uid).map_or(Attempt::None, |entry| entry.last.clone())
    }

    /// Name of a snapshot of that machine that is being merged, other than that of `but`.
    pub fn merging(&self, namespace: &str, machine: &str, but: Option<&str>) -> Option<String> {
        let all = self.all.lock();
        let merging = all.iter().find(|(uid, entry)| {
            entry.last == Attempt::Merging
                && (entry.machine.0 == namespace && entry.machine.1 == machine)
                && Some(uid.as_str()) != but
        });
        merging.map(|(_, entry)| entry.name.clone())
    }

    /// Remembers a merge that begins.
    pub fn begin_merge(&self, uid: &str, machine: (String, String), name: String) {
        let mut all = self.all.lock();
        let failures = all.get(uid).map_or(0, |entry| entry.failures);
        all.insert(uid.to_owned(), Entry { machine, name, last: Attempt::Merging, failures });
    }

    /// Remembers how something ended.
    pub fn end(&self, uid: &str, result: Result<(), String>) {
        let mut all = self.all.lock();
        let Err(message) = result else {
            all.remove(uid);
            return;
        };
        let new = Entry { machine: Default::default(), name: String::new(), last: Attempt::None, failures: 0 };
        let entry = all.entry(uid.to_owned()).or_insert(new);
        let pause = FIRST_PAUSE.checked_mul(1 << entry.failures.min(8)).unwrap_or(LONGEST_PAUSE);
        entry.failures = entry.failures.saturating_add(1);
        entry.last = Attempt::Failed { message, again: Timestamp::now() + pause.min(LONGEST_PAUSE) };
    }

    /// Remembers that QEMU has an overlay open, of which libvirt, which died, knows nothing: for as long as this run of the guest lasts.
    pub fn hold(&self, domain: &str, run: u32, path: String) {
        self.held.lock().insert(domain.to_owned(), (run, path));
    }

    /// An overlay that QEMU is known to have open so.
    pub fn held(&self, domain: &str, run: Option<u32>) -> Option<String> {
        let held = self.held.lock().get(domain).cloned();
        held.filter(|(of, _)| Some(*of) == run).map(|(_, path)| path)
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.all.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_seen_by_the_others_of_its_machine_and_failures_are_spread_out() {
        let attempts = Attempts::default();
        attempts.begin_merge("u", ("shop".into(), "web".into()), "before".into());
        assert_eq!(attempts.merging("shop", "web", None).as_deref(), Some("before"));
        assert_eq!((attempts.merging("shop", "web", Some("u")), attempts.merging("shop", "db", None)), (None, None));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            attempts.end("u", Err("busy".into()));
            if let Attempt::Failed { again, .. } = attempts.of("u") {
                pauses.push((again.duration_since(Timestamp::now()).as_secs_f64()).round() as u32);
            }
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(attempts.merging("shop", "web", None), None);
        attempts.end("u", Ok(()));
        assert_eq!(attempts.of("u"), Attempt::None);
        attempts.hold("d", 7, "/p/o".into());
        let held = [Some(7), Some(8), None].map(|run| attempts.held("d", run).is_some());
        assert_eq!(held, [true, false, false], "the guest was started anew");
    }
}
