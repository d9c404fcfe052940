//! The bed's programs in the version before this one, which `VIRTFLEET_PREVIOUS` names (e2e/previous/build.sh). Changes files of the run.

use super::{Story, until};
use crate::Result;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One of the bed's programs while it runs in the version before this one. When it is dropped the bed's own comes back.
pub struct Previous<'a> {
    story: &'a Story,
    program: &'static str,
    /// The file that the keeper starts.
    binary: PathBuf,
    /// Where the bed's own waits.
    own: PathBuf,
}

impl Story {
    /// Lets one of the bed's programs end and come back in the version before this one, with all that it is given otherwise.
    pub async fn previous(&self, binary: &str, program: &'static str) -> Previous<'_> {
        let folder = std::env::var("VIRTFLEET_PREVIOUS")
            .unwrap_or_else(|_| panic!("VIRTFLEET_PREVIOUS is not set: e2e/previous/build.sh prints it"));
        let binary = self.run.dir.join("bin").join(binary);
        let own = binary.with_extension("own");
        let previous = Previous { story: self, program, binary, own };
        previous.put_in_place(Path::new(&folder)).unwrap_or_else(|error| panic!("{error}"));
        previous.restarted().await;
        previous
    }
}

impl Previous<'_> {
    /// Programs that run already keep the file that they began with.
    fn put_in_place(&self, folder: &Path) -> Result<()> {
        let part = self.binary.with_extension("part");
        fs::copy(folder.join(self.binary.file_name().unwrap_or_default()), &part)?;
        fs::hard_link(&self.binary, &self.own)?;
        Ok(fs::rename(part, &self.binary)?)
    }

    /// Ends the program and waits until it runs what is in its place now.
    async fn restarted(&self) {
        self.story.end_program(self.program);
        let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
        until(&format!("{} from {}", self.program, self.binary.display()), async || -> Result<()> {
            let pid = self.story.pid(self.program).ok_or("it does not run")?;
            let runs = file(Path::new(&format!("/proc/{pid}/exe")))? == file(&self.binary)?;
            runs.then_some(()).ok_or("another one runs".into())
        })
        .await;
    }

    /// Brings the bed's own back.
    pub async fn end(self) {
        fs::rename(&self.own, &self.binary).unwrap_or_else(|error| panic!("{error}"));
        self.restarted().await;
    }
}

impl Drop for Previous<'_> {
    fn drop(&mut self) {
        if fs::rename(&self.own, &self.binary).is_ok() {
            self.story.end_program(self.program);
        }
    }
}
