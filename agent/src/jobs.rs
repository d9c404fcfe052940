//! Imports under way. What they have done lies on the disk; here is only that they run, how far they are, and why they failed.

use crate::context::Shared;
use crate::import::Failure;
use jiff::{SignedDuration, Timestamp};
use plan::storage_volume::Job;
use plan::storage_volume::secret::MISSING;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

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
    Running { told: Told, task: AbortHandle, ended: oneshot::Receiver<Infallible> },
    Failed(Failure, Timestamp),
}

/// Held by whatever works at an import. An abort reaches only what waits: what runs on a thread goes on, and holds this until it is over.
pub type AtWork = oneshot::Sender<Infallible>;

/// How far an import is.
#[derive(Default)]
pub struct Progress {
    /// Bytes received.
    pub received: AtomicU64,
    /// Bytes in all; 0 when the server did not tell.
    pub total: AtomicU64,
}

/// How far an import is, as users are told: a volume is looked at for many reasons, and each other number would be a write.
struct Told {
    progress: Arc<Progress>,
    job: Job,
    at: Instant,
}

impl Told {
    fn new(progress: Arc<Progress>) -> Told {
        Told { job: progress.job(), progress, at: Instant::now() }
    }

    fn job(&mut self) -> Job {
        if self.at.elapsed() >= STANDS {
            *self = Told::new(self.progress.clone());
        }
        self.job.clone()
    }
}

impl Progress {
    fn job(&self) -> Job {
        Job::Running {
            received: self.received.load(Ordering::Relaxed),
            total: Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0),
        }
    }
}

/// An import is looked at this often.
pub const TOLD_EVERY: Duration = Duration::from_secs(5);
/// So long does a number stand: a little less, since no look comes at the very moment.
const STANDS: Duration = Duration::from_secs(4);
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
const DEPENDENCY: SignedDuration = SignedDuration::from_secs(30);

impl Jobs {
    /// What is known of the volume's import.
    pub fn of(&self, uid: &str) -> Job {
        match self.0.lock().get_mut(uid).map(|entry| &mut entry.state) {
            None => Job::None,
            Some(State::Running { told, .. }) => told.job(),
            Some(State::Failed(failure, again)) => {
                Job::Failed { reason: failure.reason, message: failure.message.clone(), again: *again }
            }
        }
    }

    /// Begins an import.
    pub fn begin<F>(&self, uid: &str, progress: Arc<Progress>, work: impl FnOnce(AtWork) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (at_work, ended) = oneshot::channel();
        // Its end waits for this lock: it cannot be noted before its beginning.
        let mut all = self.0.lock();
        let task = tokio::spawn(work(at_work)).abort_handle();
        let failures = all.get(uid).map_or(0, |entry| entry.failures);
        all.insert(
            uid.to_owned(),
            Entry { state: State::Running { told: Told::new(progress), task, ended }, failures },
        );
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

    /// Ends it. When this returns nothing of it goes on: a file that was about to get its name has it.
    pub async fn cancel(&self, uid: &str) {
        let entry = self.0.lock().remove(uid);
        if let Some(Entry { state: State::Running { task, ended, .. }, .. }) = entry {
            task.abort();
            let _ = ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn an_import_that_is_cancelled_at_its_last_moment_is_over_before_files_are_looked_for() {
        let (jobs, dir) = (Jobs::default(), tempfile::tempdir().unwrap());
        let file = dir.path().join("volume");
        let (begin, begun) = oneshot::channel();
        let (go, gone) = mpsc::channel::<()>();
        let path = file.clone();
        jobs.begin("u", Arc::default(), |at_work| async move {
            // Stands for `files::finish`, in the middle of which no test can stop.
            let finish = move || {
                let _at_work = at_work;
                begin.send(()).unwrap();
                gone.recv().unwrap();
                std::fs::write(path, "").unwrap();
            };
            let _ = tokio::task::spawn_blocking(finish).await;
        });
        begun.await.unwrap();
        let mut cancel = std::pin::pin!(jobs.cancel("u"));
        assert!(futures::poll!(&mut cancel).is_pending(), "it goes on");
        go.send(()).unwrap();
        cancel.await;
        assert!(file.exists(), "whoever removes files now finds it");
    }

    #[tokio::test(start_paused = true)]
    async fn however_often_a_volume_is_looked_at_its_progress_is_another_every_five_seconds() {
        let (jobs, progress) = (Jobs::default(), Arc::<Progress>::default());
        jobs.begin("u", progress.clone(), |at_work| async move {
            let _at_work = at_work;
            std::future::pending::<()>().await;
        });
        let mut told = Vec::new();
        for second in 0..=10 {
            progress.received.store(second, Ordering::Relaxed);
            if let Job::Running { received, .. } = jobs.of("u") {
                told.push(received);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8]);
    }
}
