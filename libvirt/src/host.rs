//! Calls about the host itself.

use crate::Libvirt;
use crate::error::Result;

/// Versions, such as `11.3.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// libvirtd's.
    pub libvirt: String,
    /// The hypervisor's.
    pub hypervisor: String,
}

/// What the machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_kib: u64,
}

impl Libvirt {
    /// Versions of libvirt and hypervisor.
    pub async fn versions(&self) -> Result<Versions> {
        self.list("virConnectGetLibVersion", |connect| {
            // 1,000,000·major + 1,000·minor + release (virConnectGetVersion).
            let text = |v: u32| format!("{}.{}.{}", v / 1_000_000, v / 1000 % 1000, v % 1000);
            Ok(Versions { libvirt: text(connect.lib_version()?), hypervisor: text(connect.hyp_version()?) })
        })
        .await
    }

    /// What the machine has.
    pub async fn node(&self) -> Result<Node> {
        self.list("virNodeGetInfo", |connect| {
            let info = connect.node_info()?;
            Ok(Node { cpus: info.cpus, memory_kib: info.memory })
        })
        .await
    }

    /// The host's capabilities as XML.
    pub async fn capabilities(&self) -> Result<String> {
        self.list("virConnectGetCapabilities", |connect| connect.capabilities()).await
    }
}
