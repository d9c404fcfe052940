//! Starts the bed, or says that it runs. Does I/O.

use crate::run::{Parts, Run};
use crate::shell::until;
use crate::{Result, down, environment, install};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Binaries that a run takes a copy of, so that a build does not disturb it.
const BINARIES: [&str; 2] = ["virtfleet-agent", "virtfleet-controller"];

/// Brings the bed up; `dev` is the folder that remembers it.
///
/// # Errors
/// When something does not come up; what was started is ended.
pub fn up(dev: &Path, made_of: Parts) -> Result<()> {
    if let Some(run) = Run::remembered(dev)? {
        if down::keeper(&run).is_some() && environment::is_of(&run, dev) {
            say("it is up already");
            return environment::write(&run, dev);
        }
        if down::keeper(&run).is_some() {
            say("the last start was interrupted: going on with it");
            return finish(&run, dev);
        }
        say("the last one ended badly: cleaning up after it");
        down::clean(&run)?;
    }
    let own = std::env::current_exe()?;
    let binaries = own.parent().ok_or("no folder of binaries")?;
    let run = Run::new(dev, binaries, made_of)?;
    start(&run, dev, &own).or_else(|error| {
        tell_logs(&run);
        down::down(dev)?;
        Err(error)
    })
}

fn start(run: &Run, dev: &Path, own: &Path) -> Result<()> {
    for name in BINARIES {
        fs::copy(run.binaries.join(name), run.dir.join("bin").join(name))?;
    }
    say("start the control plane and the hosts");
    let log = File::create(run.dir.join("log/keeper.log"))?;
    // A session of its own: Ctrl-C in the shell that started it is not for it.
    Command::new("setsid")
        .arg("--fork")
        .arg(own)
        .arg("keep")
        .arg(&run.dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    finish(run, dev)
}

/// What is left to do once the keeper was started; may be done again.
fn finish(run: &Run, dev: &Path) -> Result<()> {
    until("the certificates", Duration::from_secs(20), || {
        Ok(fs::metadata(run.kubeconfig("kube-controller-manager"))?)
    })?;
    let run = Run::load(&run.dir)?;
    match &run.node {
        None => install::install(&run, &say)?,
        Some(images) => install::node(&run, images, &say)?,
    }
    environment::write(&run, dev)?;
    say(&format!("it is up; look around with: source {}", dev.join("env").display()));
    Ok(())
}

/// The end of each log, since the folder goes.
fn tell_logs(run: &Run) {
    for entry in fs::read_dir(run.dir.join("log")).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|kind| kind == "jsonl") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        eprintln!("--- {}", entry.file_name().display());
        lines.iter().skip(lines.len().saturating_sub(8)).for_each(|line| eprintln!("{line}"));
    }
}

fn say(what: &str) {
    println!("bed: {what}");
}
