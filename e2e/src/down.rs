//! Ends the bed and looks that nothing is left. Does I/O.

use crate::run::Run;
use crate::shell::{output, until};
use crate::{Result, net, node};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Process id of a run's living keeper.
pub fn keeper(run: &Run) -> Option<Pid> {
    let pid = fs::read_to_string(run.pid_file("keeper")).ok()?.parse().ok().and_then(Pid::from_raw)?;
    keeps(run, pid).then_some(pid)
}

/// Whether that process is the run's keeper: the number may be somebody else's by now.
fn keeps(run: &Run, pid: Pid) -> bool {
    let command = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    command.contains(&*run.dir.to_string_lossy()) && test_kill_process(pid).is_ok()
}

/// Ends the bed that `dev` remembers.
///
/// # Errors
/// When something of it cannot be ended.
pub fn down(dev: &Path) -> Result<()> {
    let Some(run) = Run::remembered(dev)? else {
        println!("bed: nothing is up");
        return Ok(());
    };
    if let Some(pid) = keeper(&run) {
        println!("bed: ending");
        kill_process(pid, Signal::TERM)?;
        // It removes the run's folder last, its own number among the first, and hosts' root file systems are many files.
        until("the end of the keeper", Duration::from_secs(240), || {
            if keeps(&run, pid) { Err("it still runs".into()) } else { Ok(()) }
        })?;
    }
    clean(&run)?;
    for file in ["run", "env"] {
        let _ = fs::remove_file(dev.join(file));
    }
    println!("bed: nothing of it is left");
    Ok(())
}

/// Removes what a run left, and says what cannot be removed. Its processes ended with the keeper (parent-death signals and the
/// hosts' process namespaces), its mounts and networks with its processes.
///
/// # Errors
/// When something is left.
pub fn clean(run: &Run) -> Result<()> {
    let left = || match processes(run)?.as_slice() {
        [] => Ok(()),
        some => Err(format!("processes {some:?} of it still run").into()),
    };
    until("the end of all processes", Duration::from_secs(20), left)?;
    net::remove_bridge(run);
    if run.dir.exists() {
        fs::remove_dir_all(&run.dir)?;
    }
    let dir = run.dir.to_string_lossy().into_owned();
    if fs::read_to_string("/proc/self/mountinfo")?.contains(&dir) {
        return Err(format!("something is still mounted below {dir}").into());
    }
    if output(&["ip", "link"])?.contains(&run.bridge()) {
        return Err(format!("the bridge {} is still there", run.bridge()).into());
    }
    until("the end of the control groups", Duration::from_secs(10), || {
        node::remove_cgroups(run);
        let left: Vec<_> = node::cgroups(run)?.into_iter().filter(|group| group.exists()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are still there").into()) }
    })
}

/// Processes whose command line names the run's folder.
fn processes(run: &Run) -> Result<Vec<u32>> {
    let dir = run.dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() && command.contains(&dir) {
            found.push(pid);
        }
    }
    Ok(found)
}
