//! What makes a host a node of the cluster: containerd, kubelet and kube-proxy beside its libvirtd, in the host's namespaces. Does I/O.
//!
//! Of the machine itself they have one thing, a control group of the run's name in each hierarchy, which goes with the run.

use crate::host::Host;
use crate::program::Program;
use crate::run::Run;
use crate::{Result, shell};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Containers' addresses; only the node's own network knows them.
const PODS: &str = "10.244.0.0/24";
/// The image of the process that holds a pod's namespaces, as `e2e/image.sh` names it.
const PAUSE: &str = "localhost/virtfleet-pause:bed";
/// What kubelet wants of the kernel. It finds it in files of its own and so changes nothing in the machine's kernel.
const KERNEL: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the node's settings and the run's control groups.
///
/// # Errors
/// When they cannot be made.
pub fn prepare(run: &Run, host: &Host) -> Result<()> {
    let dir = folder(host);
    fs::create_dir_all(dir.join("cni"))?;
    fs::create_dir_all(dir.join("cgroup"))?;
    for (name, value) in KERNEL {
        fs::write(dir.join(name.replace('/', ".")), value)?;
    }
    fs::write(dir.join("containerd.toml"), containerd(&dir))?;
    fs::write(dir.join("cni/10-pods.conflist"), network().to_string())?;
    fs::write(dir.join("kubelet.json"), kubelet(run).to_string())?;
    fs::write(dir.join("kube-proxy.json"), kube_proxy(run, host).to_string())?;
    cgroups(run)?.iter().try_for_each(|group| Ok(fs::create_dir(group)?))
}

/// Lines for the host's first process, before it mounts a `/sys` of its own.
pub fn lines_before_sys(host: &Host) -> Vec<String> {
    vec![format!("mount --rbind /sys/fs/cgroup '{}'", folder(host).join("cgroup").display())]
}

/// Lines for the host's first process, after all other mounts.
pub fn lines_after_mounts(host: &Host) -> Vec<String> {
    let dir = folder(host);
    let mut lines = vec![format!("mount --rbind '{}' /sys/fs/cgroup", dir.join("cgroup").display())];
    let own = |name: &str| dir.join(name.replace('/', "."));
    lines.extend(KERNEL.map(|(name, _)| format!("mount --bind '{}' /proc/sys/{name}", own(name).display())));
    // A pod may ask to see what is mounted later on its node.
    lines.push("mount --make-rshared /".into());
    lines
}

/// Its programs in the order of their start.
pub fn programs(run: &Run, host: &Host) -> Vec<Program> {
    let dir = folder(host);
    let file = |name: &str| dir.join(name).display().to_string();
    let argv = |program: String, words: String| -> Vec<String> {
        [program].into_iter().chain(words.split(' ').map(str::to_owned)).collect()
    };
    let containerd = argv("containerd".into(), format!("--config {}", file("containerd.toml")));
    let kubelet = argv(
        run.cluster_program("kubelet"),
        format!(
            "--config {} --kubeconfig {} --hostname-override {} --node-ip {} --cert-dir {}",
            file("kubelet.json"),
            run.kubeconfig("kubelet").display(),
            host.name,
            run.host_address(host.index),
            file("pki"),
        ),
    );
    let proxy = argv(run.cluster_program("kube-proxy"), format!("--config {}", file("kube-proxy.json")));
    vec![
        Program::on(&host.name, "containerd", containerd).after([host.ready_file(), host.net_file()]),
        Program::on(&host.name, "kubelet", kubelet).after([host.outside("/run/containerd/containerd.sock")]),
        Program::on(&host.name, "kube-proxy", proxy).after([host.ready_file(), host.net_file()]),
    ]
}

/// Gives the node's containerd all images of a folder.
///
/// # Errors
/// containerd's.
pub fn import(run: &Run, host: &Host, images: &Path) -> Result<()> {
    let ctr = |words: &[&str]| host.enter(run, &[&["ctr", "-n", "k8s.io"], words].concat());
    shell::until("containerd", PATIENCE, || ctr(&["version"]))?;
    for entry in fs::read_dir(images)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "tar") {
            ctr(&["images", "import", &path.to_string_lossy()])?;
        }
    }
    Ok(())
}

/// Removes the run's control groups, innermost first.
pub fn remove_cgroups(run: &Run) {
    fn remove(group: &Path) {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        let _ = fs::remove_dir(group);
    }
    cgroups(run).unwrap_or_default().iter().for_each(|group| remove(group));
}

/// The run's control group in each hierarchy of this machine, there or not.
///
/// # Errors
/// When the mounts cannot be read.
pub fn cgroups(run: &Run) -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.into_iter().map(|(at, _)| at.join(run.bridge())).collect())
}

/// The run's control group in the hierarchy of version 2.
///
/// # Errors
/// When this machine has none.
pub fn cgroup(run: &Run) -> Result<PathBuf> {
    let found = hierarchies()?.into_iter().find(|(_, kind)| kind == "cgroup2");
    Ok(found.ok_or("this machine has no control groups of version 2")?.0.join(run.bridge()))
}

/// Where control groups are mounted, and as what.
fn hierarchies() -> Result<Vec<(PathBuf, String)>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let hierarchy = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        kind.starts_with("cgroup").then(|| (at.into(), kind.to_owned()))
    };
    Ok(mounts.lines().filter_map(hierarchy).collect())
}

fn folder(host: &Host) -> PathBuf {
    host.dir.join("node")
}

fn containerd(dir: &Path) -> String {
    // A machine may forbid to lower what the kernel thinks of a process when memory ends.
    format!(
        "version = 2\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n\
         path = \"/var/lib/containerd/opt\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         sandbox_image = \"{PAUSE}\"\n\
         restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
         bin_dir = \"/usr/lib/cni\"\n\
         conf_dir = \"{}\"\n",
        dir.join("cni").display()
    )
}

fn network() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}

fn kubelet(run: &Run) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": run.dir.join("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", run.bridge()),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "protectKernelDefaults": true,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // How full this machine's disk is says nothing about us.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    })
}

fn kube_proxy(run: &Run, host: &Host) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": run.kubeconfig("kube-proxy")},
        "clusterCIDR": PODS,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        "hostnameOverride": host.name,
        "mode": "nftables",
    })
}
