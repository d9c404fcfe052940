//! Imports under way. What they have done lies on the disk; here is only that they run, how far they are, and why they failed.

use crate::context::Shared;
use crate::import::Failure;
use jiff::{SignedDuration, Timestamp};
use plan::storage_volume::Job;
use plan::storage_volume::secret::MISSING;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::AbortHandle;

/// By the volume's UID.
#[derive(Default)]
pub struct Jobs(Shared<BTreeMap<String, Entry>>);

struct Entry {
    state: State,
    failures: u32,
}

impl Entry {
    fn failed(failures: u32, failure: Failure) -> Entry {
        let pause = match failure.reason {
            // The controller looks for it as often.
            MISSING => DEPENDENCY,
            _ => FIRST_PAUSE.checked_mul(1 << failures.min(8)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE),
        };
        Entry { state: State::Failed(failure, Timestamp::now() + pause), failures: failures.saturating_add(1) }
    }
}

enum State {
    Running(Arc<Progress>, AbortHandle),
    Failed(Failure, Timestamp),
}

/// How far an import is.
#[derive(Default)]
pub struct Progress {
    /// Bytes received.
    pub received: AtomicU64,
    /// Bytes in all; 0 when the server did not tell.
    pub total: AtomicU64,
}

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
const DEPENDENCY: SignedDuration = SignedDuration::from_secs(30);

impl Jobs {
    /// What is known of the volume's import.
    pub fn of(&self, uid: &str) -> Job {
        match self.0.lock().get(uid).map(|entry| &entry.state) {
            None => Job::None,
            Some(State::Running(progress, _)) => Job::Running {
                received: progress.received.load(Ordering::Relaxed),
                total: Some(progress.total.load(Ordering::Relaxed)).filter(|total| *total > 0),
            },
            Some(State::Failed(failure, again)) => {
                Job::Failed { reason: failure.reason, message: failure.message.clone(), again: *again }
            }
        }
    }

    /// Remembers an import that begins.
    pub fn begin(&self, uid: &str, progress: Arc<Progress>, task: AbortHandle) {
        let mut all = self.0.lock();
        let failures = all.get(uid).map_or(0, |entry| entry.failures);
        all.insert(uid.to_owned(), Entry { state: State::Running(progress, task), failures });
    }

    /// Remembers how it ended.
    pub fn end(&self, uid: &str, result: Result<(), Failure>) {
        let mut all = self.0.lock();
        match (result, all.get_mut(uid)) {
            (Ok(()), _) => drop(all.remove(uid)),
            (Err(failure), Some(entry)) => *entry = Entry::failed(entry.failures, failure),
            // It was cancelled meanwhile.
            (Err(_), None) => {}
        }
    }

    /// Remembers an import that could not begin.
    pub fn refuse(&self, uid: &str, failure: Failure) {
        let mut all = self.0.lock();
        let failures = all.get(uid).map_or(0, |entry| entry.failures);
        all.insert(uid.to_owned(), Entry::failed(failures, failure));
    }

    /// Ends it.
    pub fn cancel(&self, uid: &str) {
        if let Some(Entry { state: State::Running(_, task), .. }) = self.0.lock().remove(uid) {
            task.abort();
        }
    }
}
