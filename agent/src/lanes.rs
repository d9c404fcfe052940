//! One lane a machine: whatever works on its domain (the machine's own passes, its snapshots, the growth of its disks) takes turns. What
//! is asked for in the same second is done as if it had come one after another. No policy, no I/O.

use crate::context::Shared;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Lanes by namespace and name of the machine: a domain that is retaken keeps its lane.
#[derive(Default)]
pub struct Lanes(Shared<BTreeMap<(String, String), Lane>>);

/// Forgotten when nobody uses it.
type Lane = Weak<Mutex<()>>;

/// Held while working; passes are short, since long work is a job.
pub type Turn = OwnedMutexGuard<()>;

impl Lanes {
    /// Waits for a turn; they come in the order in which they were asked for.
    pub async fn turn(&self, namespace: &str, machine: &str) -> Turn {
        let lane = {
            let mut all = self.0.lock();
            all.retain(|_, lane| lane.strong_count() > 0);
            let key = (namespace.to_owned(), machine.to_owned());
            let lane = all.get(&key).and_then(Weak::upgrade).unwrap_or_default();
            all.insert(key, Arc::downgrade(&lane));
            lane
        };
        lane.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn work_on_one_machine_takes_turns_and_delays_no_other() {
        let lanes = Lanes::default();
        let first = lanes.turn("shop", "web").await;
        assert!(lanes.turn("shop", "db").now_or_never().is_some());
        let mut second = std::pin::pin!(lanes.turn("shop", "web"));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.now_or_never().is_some());
        drop(lanes.turn("shop", "db").await);
        assert_eq!(lanes.0.lock().len(), 1, "lanes that nobody uses are forgotten");
    }
}
