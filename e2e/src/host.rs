//! A libvirt host: network, mount, UTS and process namespaces below one first process, with private folders. Does I/O.

use crate::program::{Kind, Program, init_of};
use crate::run::Run;
use crate::{HOSTS, Result, node, shell};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Folders of the machine that a host has of its own.
const PRIVATE: [&str; 6] = ["/run", "/srv", "/var/lib", "/var/log", "/var/cache", "/etc/libvirt"];

/// A host of the bed.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its place among the hosts.
    pub index: usize,
    /// Its folder.
    pub dir: PathBuf,
}

impl Host {
    /// The host of that place.
    pub fn of(run: &Run, index: usize) -> Host {
        Host { name: HOSTS[index].into(), index, dir: run.dir.join(HOSTS[index]) }
    }

    /// A folder of the host as seen from outside.
    pub fn outside(&self, inside: &str) -> PathBuf {
        self.dir.join(inside.trim_start_matches('/'))
    }

    /// The address of its libvirt for `virsh -c`, from outside.
    pub fn libvirt_uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.outside("/run/libvirt/libvirt-sock").display())
    }

    /// Whether it is a node of the cluster, whose agent runs in a pod.
    pub fn is_node(&self, run: &Run) -> bool {
        run.node.is_some() && self.index == 0
    }

    /// Runs a program within its namespaces to its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn enter(&self, run: &Run, argv: &[&str]) -> Result<String> {
        let init = fs::read_to_string(run.pid_file(&init_of(&self.name)))?;
        shell::output(&[&["nsenter", "-t", init.trim(), "-m", "-n", "-u", "-p"], argv].concat())
    }

    /// Makes its folders and settings.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn prepare(&self, run: &Run) -> Result<()> {
        for folder in PRIVATE {
            fs::create_dir_all(self.outside(folder))?;
        }
        let inner = [
            "/run/lock",
            "/srv/shared",
            "/var/lib/libvirt",
            "/var/lib/misc",
            "/var/lib/virtfleet",
            "/var/log/libvirt",
            "/var/log/libvirt/virtfleet",
            "/var/cache/libvirt",
            "/etc/libvirt/qemu/networks/autostart",
        ];
        for folder in inner {
            fs::create_dir_all(self.outside(folder))?;
        }
        // QEMU's own user must pass through.
        fs::set_permissions(self.outside("/var/lib/virtfleet"), fs::Permissions::from_mode(0o711))?;
        fs::create_dir_all(run.dir.join("shared"))?;
        let etc = self.outside("/etc/libvirt");
        fs::write(etc.join("libvirtd.conf"), self.libvirtd_conf())?;
        fs::write(etc.join("qemu.conf"), QEMU_CONF)?;
        fs::write(etc.join("virtlogd.conf"), "")?;
        let network = etc.join("qemu/networks/default.xml");
        fs::write(&network, DEFAULT_NETWORK)?;
        let link = etc.join("qemu/networks/autostart/default.xml");
        if !link.exists() {
            std::os::unix::fs::symlink("/etc/libvirt/qemu/networks/default.xml", link)?;
        }
        let names: String = (0..HOSTS.len()).map(|i| format!("{} {}\n", run.host_address(i), HOSTS[i])).collect();
        fs::write(self.dir.join("hosts"), format!("127.0.0.1 localhost\n{names}"))?;
        if self.is_node(run) {
            node::prepare(run, self)?;
        }
        fs::write(self.dir.join("init.sh"), self.init_script(run))?;
        Ok(())
    }

    /// Its programs in the order of their start.
    pub fn programs(&self, run: &Run) -> Vec<Program> {
        let script = self.dir.join("init.sh").to_string_lossy().into_owned();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let unshare =
            words("unshare --net --mount --uts --pid --fork --kill-child --mount-proc --propagation private sh");
        let init = Program {
            host: None,
            kind: Kind::HostInit,
            ..Program::plain(&init_of(&self.name), unshare.into_iter().chain([script]).collect())
        };
        let ready = [self.ready_file(), self.net_file()];
        let socket = |name: &str| self.outside("/run/libvirt").join(name);
        let agent = run.dir.join("bin/virtfleet-agent");
        let config = run.kubeconfig(&self.name);
        let mut argv = vec![agent.to_string_lossy().into_owned()];
        argv.extend(words(&format!(
            "--host {} --kubeconfig {} --pool-root /var/lib/virtfleet --pool-root /srv/shared --import-allow {}/32 --force-emulation",
            self.name,
            config.display(),
            run.address()
        )));
        let mut programs = vec![
            init,
            Program::on(&self.name, "virtlogd", words("virtlogd")).after(ready.clone()),
            Program::on(&self.name, "libvirtd", words("libvirtd"))
                .after(ready.into_iter().chain([socket("virtlogd-sock")])),
        ];
        if self.is_node(run) {
            programs.extend(node::programs(run, self));
        } else {
            programs.push(Program::on(&self.name, "agent", argv).after([config, agent, socket("libvirt-sock")]));
        }
        programs
    }

    /// There once the mounts are.
    pub fn ready_file(&self) -> PathBuf {
        self.dir.join("mounted")
    }

    /// There once the network is.
    pub fn net_file(&self) -> PathBuf {
        self.dir.join("connected")
    }

    /// A number of its own for the host, which libvirt would otherwise take from the one machine's firmware.
    fn libvirtd_conf(&self) -> String {
        let uuid = format!("5f1d5e3c-0000-4000-8000-{:012x}", self.index + 1);
        format!(
            "host_uuid = \"{uuid}\"\nunix_sock_group = \"root\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n"
        )
    }

    fn init_script(&self, run: &Run) -> String {
        let quoted = |path: &Path| format!("'{}'", path.display());
        let mut lines = vec!["set -e".to_owned(), format!("hostname {}", self.name)];
        lines.push(format!(
            "mount --bind {} {}",
            quoted(&run.dir.join("shared")),
            quoted(&self.outside("/srv/shared"))
        ));
        // Below /run and /var are sockets and data of the machine itself: the host sees its own instead. The run's folder stays visible.
        lines.extend(PRIVATE.iter().map(|folder| format!("mount --rbind {} {folder}", quoted(&self.outside(folder)))));
        if self.is_node(run) {
            lines.extend(node::lines_before_sys(self));
        }
        // The devices of the host's own network namespace.
        lines.push("mount -t sysfs sysfs /sys".into());
        lines.push(format!("mount --bind {} /etc/hosts", quoted(&self.dir.join("hosts"))));
        if self.is_node(run) {
            lines.extend(node::lines_after_mounts(self));
        }
        lines.push(format!("touch {}", quoted(&self.ready_file())));
        // As process 1 it must collect the orphans, QEMU among them: a shell does so whenever it waits.
        lines.push("while sleep 1; do :; done".into());
        lines.join("\n") + "\n"
    }
}

/// No security driver and no cgroups: neither works in a namespace of this kind.
const QEMU_CONF: &str = "security_driver = \"none\"\nuser = \"root\"\ngroup = \"root\"\ncgroup_controllers = []\n\
    namespaces = []\nremember_owner = 0\n";

const DEFAULT_NETWORK: &str = "<network><name>default</name><uuid>5f1d5e3c-0000-4000-8000-00000000d0d0</uuid>\
    <forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/><mac address='52:54:00:d0:d0:01'/>\
    <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>\
    </network>\n";
