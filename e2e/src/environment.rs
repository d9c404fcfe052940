//! The file that a shell sources to look around in the bed. Does I/O.

use crate::host::Host;
use crate::run::Run;
use crate::shell::output;
use crate::{HOSTS, Result};
use std::fs;
use std::path::Path;

/// Whether `dev/env` speaks of this run: it is written last, when all is up.
pub fn is_of(run: &Run, dev: &Path) -> bool {
    fs::read_to_string(dev.join("env")).is_ok_and(|text| text.contains(&*run.dir.to_string_lossy()))
}

/// Writes `dev/env`.
///
/// # Errors
/// When it cannot be written.
pub fn write(run: &Run, dev: &Path) -> Result<()> {
    let mut lines = vec![
        format!("export KUBECONFIG='{}'", run.kubeconfig("admin").display()),
        format!("export PATH='{}':\"$PATH\"", run.cluster.display()),
        format!("export HOSTS='{}'", HOSTS.join(" ")),
        format!("export CONTROLLER_PIDFILE='{}'", run.pid_file("controller").display()),
        format!("export AUDIT_LOG='{}'", run.audit_log().display()),
        format!("export VIRTFLEET_RUN='{}'", run.dir.display()),
    ];
    for (name, file) in [("IMAGE", "guest.qcow2"), ("KERNEL", "vmlinuz"), ("INITRD", "initrd.gz")] {
        let sums = output(&["sha256sum", &run.guest.join(file).to_string_lossy()])?;
        let sum = sums.split_whitespace().next().unwrap_or_default();
        lines.push(format!("export GUEST_{name}_URL='{}/{file}'", run.images()));
        lines.push(format!("export GUEST_{name}_SHA256='{sum}'"));
    }
    for (index, name) in HOSTS.iter().enumerate() {
        let host = Host::of(run, index);
        let suffix = name.to_uppercase().replace('-', "_");
        lines.push(format!("export LIBVIRT_URI_{suffix}='{}'", host.libvirt_uri()));
        lines.push(format!("export ROOT_{suffix}='{}'", host.outside("/var/lib/virtfleet").display()));
        lines.push(format!("export AGENT_PIDFILE_{suffix}='{}'", run.pid_file(&format!("agent-{name}")).display()));
    }
    Ok(fs::write(dev.join("env"), lines.join("\n") + "\n")?)
}
