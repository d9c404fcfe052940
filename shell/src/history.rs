//! Notices that the API server's history was put back: etcd restored from an older copy.
//!
//! A watch that goes on from a version of the future is accepted and tells nothing, without an error (kube-apiserver 1.36). But a write
//! that is answered with a lower version than an earlier one can mean nothing else. Versions are numbers in one order since Kubernetes 1.35.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// What this process has seen of the history; cheap to clone.
#[derive(Clone)]
pub struct History {
    last: Arc<AtomicU64>,
    rewritten: watch::Sender<u32>,
}

impl Default for History {
    fn default() -> Self {
        History { last: Arc::default(), rewritten: watch::channel(0).0 }
    }
}

impl History {
    /// A write of ours was answered with this resourceVersion. Writes of one caller, one after another.
    pub fn wrote(&self, version: Option<&str>) {
        let Some(version) = version.and_then(|version| version.parse::<u64>().ok()) else { return };
        if version < self.last.swap(version, Ordering::Relaxed) {
            tracing::warn!("the API server's history went back; reading everything again");
            self.rewritten.send_modify(|times| *times += 1);
        }
    }

    /// Changes whenever what was read before counts for nothing.
    pub fn rewritten(&self) -> watch::Receiver<u32> {
        self.rewritten.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_that_goes_back_is_another_history() {
        let history = History::default();
        let mut rewritten = history.rewritten();
        let mut told = |version| {
            history.wrote(version);
            let told = rewritten.has_changed().unwrap_or_default();
            rewritten.mark_unchanged();
            told
        };
        assert_eq!([Some("7"), Some("900"), None, Some("x"), Some("10000")].map(&mut told), [false; 5]);
        assert_eq!([Some("9999"), Some("9999"), Some("10001")].map(told), [true, false, false]);
    }
}
