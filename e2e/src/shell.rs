//! Runs other programs to their end. Does I/O.

use crate::Result;
use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a program and gives its output; its error output is part of the error.
///
/// # Errors
/// When it cannot be started or fails.
pub fn output<S: AsRef<OsStr>>(argv: &[S]) -> Result<String> {
    let name = argv.first().ok_or("nothing to run")?;
    let output = Command::new(name).args(&argv[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", name.as_ref().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<_> = argv.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed: {}", words.join(" "), said.trim()).into())
}

/// Tries until it works or the time is over, then gives the last error.
///
/// # Errors
/// The last error of `attempt`.
pub fn until<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > limit => {
                return Err(format!("{what}: not within {} s: {error}", limit.as_secs()).into());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
