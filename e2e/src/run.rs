//! One run of the bed: its own folder, bridge and subnet, so that two runs on one machine do not meet. Does I/O.

use crate::Result;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Where runs live. Short: a Unix socket's path may have 107 characters.
const RUNS: &str = "/var/tmp/virtfleet";

/// One run of the bed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Six hexadecimal digits.
    pub id: String,
    /// The run's folder.
    pub dir: PathBuf,
    /// Second and third number of its subnet 10.x.y.0/24.
    pub subnet: (u8, u8),
    /// Folder of the built binaries.
    pub binaries: PathBuf,
    /// Folder of kube-apiserver, etcd, kubectl and helm.
    pub cluster: PathBuf,
    /// Folder of the guest's disk, kernel and initial RAM disk.
    pub guest: PathBuf,
    /// The checkout.
    pub checkout: PathBuf,
    /// Folder of container images, when the first host is a node of the cluster.
    pub node: Option<PathBuf>,
}

/// What a bed is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The checkout.
    pub checkout: PathBuf,
    /// Folder of kube-apiserver, etcd, kubectl and helm.
    pub cluster: PathBuf,
    /// Folder of the guest's disk, kernel and initial RAM disk.
    pub guest: PathBuf,
    /// Folder of container images, when the first host shall be a node of the cluster.
    pub node: Option<PathBuf>,
}

impl Run {
    /// A new run without a subnet: [`crate::net`] chooses it. `dev` remembers it.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn new(dev: &Path, binaries: &Path, made_of: Parts) -> Result<Run> {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.chars().take(6).collect::<String>();
        let dir = Path::new(RUNS).join(&id);
        for folder in ["pid", "hold", "log", "pki", "kube", "bin"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let run = Run {
            id,
            dir,
            subnet: (0, 0),
            binaries: binaries.into(),
            cluster: made_of.cluster,
            guest: made_of.guest,
            checkout: made_of.checkout,
            node: made_of.node,
        };
        fs::create_dir_all(dev)?;
        // The bed of another run that is gone.
        let _ = fs::remove_file(dev.join("env"));
        // What `dev` remembers can be read: whoever is interrupted between the two leaves an empty folder, not a riddle.
        run.save()?;
        fs::write(dev.join("run"), run.dir.to_string_lossy().as_bytes())?;
        Ok(run)
    }

    /// The run that `dev` remembers, if its folder is there.
    ///
    /// # Errors
    /// When the folder is there and cannot be understood: something of it may still run.
    pub fn remembered(dev: &Path) -> Result<Option<Run>> {
        let dir = fs::read_to_string(dev.join("run")).map(PathBuf::from).ok().filter(|dir| dir.exists());
        dir.map(|dir| Run::load(&dir)).transpose()
    }

    /// Reads a run from its folder.
    ///
    /// # Errors
    /// When it is not one.
    pub fn load(dir: &Path) -> Result<Run> {
        Ok(serde_json::from_str(&fs::read_to_string(dir.join("run.json"))?)?)
    }

    /// The run that tests are given: `VIRTFLEET_RUN` names its folder.
    ///
    /// # Errors
    /// When it names none.
    pub fn given() -> Result<Run> {
        Run::load(Path::new(&std::env::var("VIRTFLEET_RUN")?))
    }

    /// Writes the run into its folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> Result<()> {
        Ok(fs::write(self.dir.join("run.json"), serde_json::to_string_pretty(self)?)?)
    }

    /// Name of the bridge; 15 characters are the kernel's limit.
    pub fn bridge(&self) -> String {
        format!("vf{}", self.id)
    }

    /// The shell's and the API server's address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet.0, self.subnet.1, 1)
    }

    /// Address of a host.
    pub fn host_address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet.0, self.subnet.1, 10 + u8::try_from(index).unwrap_or(0))
    }

    /// The API server.
    pub fn server(&self) -> String {
        format!("https://{}:6443", self.address())
    }

    /// Where images are served.
    pub fn images(&self) -> String {
        format!("http://{}:8080", self.address())
    }

    /// File with the process id of a program.
    pub fn pid_file(&self, program: &str) -> PathBuf {
        self.dir.join("pid").join(program)
    }

    /// While this file is there, the program is not started again.
    pub fn hold_file(&self, program: &str) -> PathBuf {
        self.dir.join("hold").join(program)
    }

    /// A kubeconfig.
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.dir.join("kube").join(who)
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("log/audit.jsonl")
    }

    /// One of the cluster's programs.
    pub fn cluster_program(&self, name: &str) -> String {
        self.cluster.join(name).to_string_lossy().into_owned()
    }
}
