//! Host: a machine with libvirtd that an agent looks after.

use crate::{Condition, Quantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A machine that runs libvirtd. Its name is the Node's name, or free for a machine outside the cluster.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "virtfleet.dev",
    version = "v1alpha1",
    kind = "Host",
    plural = "hosts",
    shortname = "vhost",
    category = "virt",
    status = "HostStatus",
    derive = "PartialEq",
    printcolumn(name = "Ready", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, type_ = "string"),
    printcolumn(name = "State", json_path = ".status.state", type_ = "string"),
    printcolumn(name = "VMs", json_path = ".status.allocated.vms", type_ = "integer"),
    printcolumn(name = "CPU", json_path = ".status.capacity.cpu", type_ = "string"),
    printcolumn(name = "Memory", json_path = ".status.capacity.memory", type_ = "string"),
    printcolumn(name = "Libvirt", json_path = ".status.versions.libvirt", type_ = "string"),
    printcolumn(name = "Age", json_path = ".metadata.creationTimestamp", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// Whether new machines may be placed here. What runs here stays.
    #[serde(default = "yes")]
    pub schedulable: bool,
    /// How many times over the host's processors and memory may be promised.
    #[serde(default)]
    pub overcommit: Overcommit,
    /// What is never promised to machines.
    #[serde(default)]
    pub reserved: Reserved,
}

/// Factors, as decimal text such as `1.5`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overcommit {
    /// Virtual processors that may be promised for each of the host's, as decimal text such as `1.5`.
    #[serde(default = "four")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,4}([.][0-9]{1,3})?$') && double(self) >= 1.0")
        .message("cpu must be a decimal number of at least 1, such as \"4\""))]
    pub cpu: String,
    /// Bytes of guest memory that may be promised for each of the host's, as decimal text such as `1.5`.
    #[serde(default = "one")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,4}([.][0-9]{1,3})?$') && double(self) >= 1.0")
        .message("memory must be a decimal number of at least 1, such as \"1.5\""))]
    pub memory: String,
}

/// Resources kept for the host itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// Processors, such as `2` or `500m`.
    #[serde(default = "one_cpu")]
    pub cpu: Quantity,
    /// Bytes of memory, such as `4Gi`.
    #[serde(default = "one_gi")]
    pub memory: Quantity,
}

impl Default for Overcommit {
    fn default() -> Self {
        Overcommit { cpu: four(), memory: one() }
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Reserved { cpu: one_cpu(), memory: one_gi() }
    }
}

/// What is so on the host. Written by its agent; the controller takes over `state` and `Ready` while its Lease is stale.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether machines can run here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<HostState>,
    /// Versions of what runs on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Versions>,
    /// Architecture, in libvirt's words, such as `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The processor's model, in libvirt's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// How guests run: `KVM` or `Emulation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceleration: Option<String>,
    /// What this host's libvirt and QEMU can do. `externalSnapshot`: snapshots of method External.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capabilities: BTreeMap<String, bool>,
    /// What the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Resources>,
    /// What may be promised to machines: capacity less the reserved, times overcommit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Resources>,
    /// What is promised to the machines bound here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Allocated>,
    /// The StoragePools of this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub storage_pools: Vec<HostPool>,
    /// All domains that carry Virtfleet's mark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub domains: Vec<MarkedDomain>,
    /// Domains without Virtfleet's mark: it touches none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmanaged_domains: Option<UnmanagedDomains>,
    /// Ready, LibvirtConnected, AccelerationAvailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Whether machines can run on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HostState {
    /// libvirt answers.
    Ready,
    /// The agent lives, libvirt does not answer.
    NotReady,
    /// The agent does not answer.
    Unknown,
}

/// Versions of what runs on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// libvirtd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt: Option<String>,
    /// QEMU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
}

/// Processors and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Processors.
    pub cpu: Quantity,
    /// Bytes of memory.
    pub memory: Quantity,
}

/// What is promised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Allocated {
    /// Virtual processors.
    pub cpu: Quantity,
    /// Bytes of guest memory.
    pub memory: Quantity,
    /// Number of VirtualMachines.
    pub vms: i64,
}

/// A StoragePool on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostPool {
    /// Name of the StoragePool.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Generation of the StoragePool that was brought about here.
    pub observed_generation: i64,
    /// Whether volumes can be made in it.
    pub state: HostPoolState,
    /// Why they cannot, as a CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why they cannot, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes in the file system below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Quantity>,
    /// Bytes in use there, by anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Quantity>,
    /// Bytes free there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<Quantity>,
}

/// Whether a pool can be used on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HostPoolState {
    /// They can: the pool is active.
    Ready,
    /// The pool is being made.
    Pending,
    /// Something is wrong; reason and message say what.
    Failed,
}

/// A domain with our mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MarkedDomain {
    /// Namespace of the VirtualMachine in the mark.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The domain's UUID.
    pub uuid: String,
}

/// Domains without our mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnmanagedDomains {
    /// How many there are.
    pub count: i64,
    /// The first hundred, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub domains: Vec<UnmanagedDomain>,
}

/// A domain without our mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnmanagedDomain {
    /// Its name in libvirt.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// libvirt's word for its state.
    pub state: String,
}

fn yes() -> bool {
    true
}

fn four() -> String {
    "4".into()
}

fn one() -> String {
    "1".into()
}

fn one_cpu() -> Quantity {
    Quantity("1".into())
}

fn one_gi() -> Quantity {
    Quantity("1Gi".into())
}
