//! The run's bridge and the hosts' way to it. Does I/O.

use crate::run::Run;
use crate::{Result, shell};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;

/// Makes the run's bridge with a subnet that nobody on this machine uses.
///
/// # Errors
/// When the bridge cannot be made.
pub fn make_bridge(run: &mut Run) -> Result<()> {
    // Two runs that start at once must not choose the same subnet.
    let lock = File::create(run.dir.with_file_name("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let taken = shell::output(&["ip", "-4", "-o", "addr"])?;
    let free = |subnet: &(u8, u8)| !taken.contains(&format!(" 10.{}.{}.", subnet.0, subnet.1));
    let mut subnets = (0..=255u8).map(|third| (213, third));
    run.subnet = subnets.find(free).ok_or("no free subnet in 10.213.0.0/16")?;
    let (bridge, address) = (run.bridge(), format!("{}/24", run.address()));
    shell::output(&["ip", "link", "add", &bridge, "type", "bridge"])?;
    shell::output(&["ip", "addr", "add", &address, "dev", &bridge])?;
    shell::output(&["ip", "link", "set", &bridge, "up"])?;
    run.save()
}

/// Connects a host's network namespace to the bridge.
///
/// # Errors
/// When `ip` fails.
pub fn join(run: &Run, index: usize, init: u32) -> Result<()> {
    let (init, outside) = (init.to_string(), format!("{}{index}", run.bridge()));
    let inside = |words: &[&str]| {
        let mut argv = vec!["nsenter", "-t", &init, "-n", "ip"];
        argv.extend(words);
        shell::output(&argv).map(drop)
    };
    // One that was left by an init that died goes with its peer, a little later.
    let _ = shell::output(&["ip", "link", "del", &outside]);
    shell::output(&["ip", "link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &init])?;
    shell::output(&["ip", "link", "set", &outside, "master", &run.bridge(), "up"])?;
    inside(&["link", "set", "lo", "up"])?;
    inside(&["addr", "add", &format!("{}/24", run.host_address(index)), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    inside(&["route", "add", "default", "via", &run.address().to_string()])
}

/// Removes the bridge, if it is there.
pub fn remove_bridge(run: &Run) {
    let _ = shell::output(&["ip", "link", "del", &run.bridge()]);
}
