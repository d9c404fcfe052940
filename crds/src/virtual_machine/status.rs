//! What is told of a VirtualMachine.

use crate::{Condition, Quantity, Teardown};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachinePhase {
    /// No host yet.
    Pending,
    /// Its host gets volumes and domain ready.
    Provisioning,
    /// It is being started.
    Starting,
    /// The guest runs.
    Running,
    /// The guest's processors stand still, and Virtfleet did not stop them.
    Paused,
    /// The guest was asked to shut down.
    Stopping,
    /// The guest is off.
    Stopped,
    /// The guest crashed or was killed.
    Crashed,
    /// Its host does not answer.
    Unknown,
    /// It cannot be made as the manifest says; conditions say why.
    Failed,
    /// It is being deleted.
    Terminating,
}

/// What is so on the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineStatus {
    /// Generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the machine is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePhase>,
    /// Host it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its domain in the host's libvirt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainStatus>,
    /// What the domain has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesStatus>,
    /// When this run of the guest was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// The disks as the domain has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub disks: Vec<DiskStatus>,
    /// The interfaces as the domain has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub interfaces: Vec<InterfaceStatus>,
    /// What the guest agent tells of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestStatus>,
    /// What the running guest does not have yet of the manifest, looked up afresh each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub pending_changes: Vec<PendingChange>,
    /// The snapshots of the domain, whoever made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotsStatus>,
    /// The deletion under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<Teardown>,
    /// Ready, Reconciling, Stalled, Scheduled, VolumesReady, RestartRequired, AgentConnected, Conflict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A change of the manifest that the running guest does not have yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingChange {
    /// The field; items of a list by their names, such as `spec.disks[data]`.
    pub path: String,
    /// What the guest has.
    pub current: String,
    /// What the manifest asks for.
    pub desired: String,
    /// When it comes into force.
    pub apply: Apply,
    /// Why not yet.
    pub reason: String,
}

/// When a change comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Apply {
    /// Without a restart, as soon as the guest lets it.
    Live,
    /// At the guest's next start.
    Restart,
}

/// The snapshots of a domain, whoever made them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotsStatus {
    /// How many.
    pub count: i64,
    /// Name in libvirt of the one that the machine goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
}

/// A machine's domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainStatus {
    /// Its name in libvirt: `<namespace>.<name>`.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its number while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
}

/// What a domain has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourcesStatus {
    /// Number of virtual processors.
    pub cores: i32,
    /// Bytes of memory.
    pub memory: Quantity,
}

/// A disk of the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskStatus {
    /// Name in the spec.
    pub name: String,
    /// libvirt's name for it, such as `vda`.
    pub target: String,
    /// Its file on the host.
    pub path: String,
}

/// An interface of the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStatus {
    /// Name in the spec.
    pub name: String,
    /// Hardware address.
    pub mac_address: String,
    /// Addresses that the guest agent tells of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,
}

/// What the guest agent tells; never used to decide anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuestStatus {
    /// The guest's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
}
