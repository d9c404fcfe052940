//! One of the bed's hosts as it would have booted: systemd is process 1, in the host's network and with its libvirt. Does I/O.

use crate::host::Host;
use crate::program::init_of;
use crate::run::Run;
use crate::shell::{output, until};
use crate::{Result, node};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What it has of the host: libvirt's sockets, volumes, and the guests' consoles.
const SHARED: [&str; 3] = ["/run/libvirt", "/var/lib/virtfleet", "/var/log/libvirt"];
const PATIENCE: Duration = Duration::from_secs(60);

/// A booted host. All of it ends when this is dropped.
#[derive(Debug)]
pub struct Booted {
    /// Its root, as seen from outside.
    pub root: PathBuf,
    group: PathBuf,
    process: Child,
}

impl Booted {
    /// Unpacks an archive that `e2e/images/base.sh` made, unless this host has booted before, and boots it.
    ///
    /// # Errors
    /// When it does not come up: the kernel must offer control groups of version 2.
    pub fn boot(run: &Run, host: &Host, archive: &Path) -> Result<Booted> {
        let root = host.dir.join("booted");
        if !root.exists() {
            fs::create_dir(&root)?;
            output(&["tar".as_ref(), "-xf".as_ref(), archive, "-C".as_ref(), &root])?;
            fs::write(root.join("etc/hostname"), &host.name)?;
        }
        let group = node::cgroup(run)?.join(&host.name);
        fs::create_dir_all(&group)?;
        let script = "echo 0 > \"$1\"/cgroup.procs && shift && exec \"$@\"";
        let host_init = fs::read_to_string(run.pid_file(&init_of(&host.name)))?;
        // Its processes are among the host's, whose libvirtd looks who asks.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter", "-t", host_init.trim(), "-n", "-p"])
            .args(["setpriv", "--pdeathsig", "KILL", "sh", "-c", script, "sh"])
            .arg(&group)
            .args("unshare --mount --uts --ipc --cgroup --pid --fork --kill-child --propagation private".split(' '))
            .arg(run.checkout.join("e2e/images/boot.sh"))
            .args([&root, &host.dir])
            .args(SHARED)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(run.dir.join(format!("log/booted-{}.log", host.name)))?)
            .spawn()?;
        let booted = Booted { root, group, process };
        until("the end of booting", PATIENCE, || booted.run("systemctl is-active multi-user.target"))?;
        Ok(booted)
    }

    /// systemd, as seen from outside: it finds its own place among the control groups first of all.
    fn init(&self) -> Result<Pid> {
        let text = fs::read_to_string(self.group.join("init.scope/cgroup.procs"))?;
        let first = text.lines().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        Ok(first.ok_or("systemd is not there")?)
    }

    /// What a shell's command prints there, said by root in its home.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, command: &str) -> Result<String> {
        let init = self.init()?.as_raw_nonzero().to_string();
        let argv = ["nsenter", "-t", &init, "-m", "-u", "-i", "-n", "-p", "-C", "sh", "-ec"];
        output(&[&argv[..], &[&format!("cd /root; {command}")]].concat()).map(|text| text.trim().to_owned())
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.run("journalctl --no-pager --lines=60").unwrap_or_else(|error| error.to_string()));
        }
        // What started it ends with it; the other way round nobody would wait for its end.
        let _ = match self.init() {
            Ok(init) => kill_process(init, Signal::KILL).map_err(Into::into),
            Err(_) => self.process.kill(),
        };
        let _ = self.process.wait();
    }
}
