//! The programs that users hold in their hands, in the story's namespace as its administrator. Runs them.

use super::Story;
use crate::Result;
use crate::shell::output;

impl Story {
    /// `kubectl`.
    ///
    /// # Errors
    /// What it says when it fails; `kubectl diff` fails when it finds a difference.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.tool("kubectl", words)
    }

    /// `helm`, with folders of its own.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn helm(&self, words: &[&str]) -> Result<String> {
        self.tool("helm", words)
    }

    fn tool(&self, name: &str, words: &[&str]) -> Result<String> {
        let home = self.run.dir.join("helm");
        let mut argv = vec!["env".to_owned()];
        argv.extend(["CACHE", "CONFIG", "DATA"].map(|kind| format!("HELM_{kind}_HOME={}", home.display())));
        argv.push(self.run.cluster_program(name));
        argv.push(format!("--kubeconfig={}", self.run.kubeconfig("admin").display()));
        argv.push(format!("--namespace={}", self.namespace));
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        output(&argv)
    }
}
