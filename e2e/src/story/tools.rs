//! The programs that users hold in their hands, in the story's namespace as its administrator. Runs them.

use super::Story;
use crate::{Result, install};

impl Story {
    /// `kubectl`.
    ///
    /// # Errors
    /// What it says when it fails; `kubectl diff` fails when it finds a difference.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        install::kubectl(&self.run, &[&[&*self.in_namespace()], words].concat())
    }

    /// `helm`.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn helm(&self, words: &[&str]) -> Result<String> {
        // The last namespace that is named is taken.
        install::helm(&self.run, &[words, &[&*self.in_namespace()]].concat())
    }

    fn in_namespace(&self) -> String {
        format!("--namespace={}", self.namespace)
    }
}
