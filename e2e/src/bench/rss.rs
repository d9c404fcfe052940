//! How much memory a process holds. Does I/O.

use crate::Result;

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rss {
    kib: u64,
}

impl Rss {
    /// Of that process, now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Rss> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no resident memory")?;
        Ok(Rss { kib: line.trim().trim_end_matches(" kB").parse()? })
    }

    /// In mebibytes.
    pub fn mebibytes(self) -> f64 {
        self.kib as f64 / 1024.0
    }
}
