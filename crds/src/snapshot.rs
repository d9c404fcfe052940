//! Snapshot: the disks of one VirtualMachine as they were at one moment.

use crate::{Condition, Quantity, Teardown};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The disks of a VirtualMachine as they were at one moment, all at the same one. Its libvirt snapshot has this object's name.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "virtfleet.dev",
    version = "v1alpha1",
    kind = "Snapshot",
    plural = "snapshots",
    shortname = "snap",
    shortname = "snaps",
    category = "virt",
    namespaced,
    status = "SnapshotStatus",
    derive = "PartialEq",
    selectable = ".status.host",
    selectable = ".spec.virtualMachine",
    printcolumn(name = "VM", json_path = ".spec.virtualMachine", type_ = "string"),
    printcolumn(name = "Ready", json_path = ".status.readyToUse", type_ = "boolean"),
    printcolumn(name = "Status", json_path = ".status.phase", type_ = "string", priority = 1),
    printcolumn(name = "Method", json_path = ".status.method", type_ = "string"),
    printcolumn(name = "Current", json_path = ".status.current", type_ = "boolean"),
    printcolumn(name = "Parent", json_path = ".status.parent.name", type_ = "string", priority = 1),
    printcolumn(name = "Age", json_path = ".metadata.creationTimestamp", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!oldSelf.hasValue() || (has(oldSelf.value().disks) == has(self.disks) && (!has(self.disks) || self.disks == oldSelf.value().disks))")
    .message("disks cannot be changed: the snapshot is of one moment; make another snapshot")
    .field_path(".disks")
    .reason(Reason::FieldValueForbidden)
    .optional_old_self(true))]
pub struct SnapshotSpec {
    /// Name of the VirtualMachine, in this namespace. Cannot be changed.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("virtualMachine cannot be changed: the snapshot is of one machine; make another snapshot")
        .reason(Reason::FieldValueForbidden))]
    pub virtual_machine: String,
    /// Where the moment is kept. A machine's snapshots are all of one method. Cannot be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("method cannot be changed: the snapshot is of one moment; make another snapshot")
        .reason(Reason::FieldValueForbidden))]
    pub method: Method,
    /// Which disks. Absent: all that the guest can write to. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Disks>,
    /// What becomes of the snapshot in libvirt when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Where a snapshot's moment is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// As the machine's snapshots before it, else External.
    #[default]
    Auto,
    /// Within the disks' own files, which must be qcow2. The guest must be off.
    Internal,
    /// Each disk's file is left as it is, and the guest goes on writing into a new file beside it. The guest may run.
    External,
}

/// The method that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UsedMethod {
    /// Within the disks' own files.
    Internal,
    /// In the files that were left as they were.
    External,
}

/// Which disks, by their names in the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.include) != has(self.exclude)")
    .message("exactly one of include or exclude must be set; without disks, all are taken"))]
pub struct Disks {
    /// Names of the machine's disks: these and no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 32)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub include: Vec<String>,
    /// Names of the machine's disks: all but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 32)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub exclude: Vec<String>,
}

/// What becomes of the snapshot in libvirt when its object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is merged into what came before and after it, and removed.
    #[default]
    Delete,
    /// It stays in libvirt, no longer Virtfleet's.
    Retain,
}

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SnapshotPhase {
    /// Not taken yet.
    Pending,
    /// It was taken and is there.
    Ready,
    /// It cannot be taken; conditions say why.
    Failed,
    /// It was there, and libvirt has it no more.
    Lost,
    /// It is being deleted.
    Terminating,
    /// Its host does not answer.
    Unknown,
}

/// Whether the guest was on at the moment of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SnapshotPower {
    /// It was on; the disks are as after a power cut.
    Running,
    /// It was off.
    Stopped,
}

/// What is so on the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// Generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the snapshot is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SnapshotPhase>,
    /// Whether it was taken and is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// Host of its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Method that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<UsedMethod>,
    /// Whether the guest was on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_state: Option<SnapshotPower>,
    /// The snapshot before it in libvirt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotRef>,
    /// The snapshots after it in libvirt, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub children: Vec<SnapshotRef>,
    /// Whether it is the one that the machine goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// When it was taken, by the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// Its disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub disks: Vec<SnapshotDisk>,
    /// The deletion under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<Teardown>,
    /// Ready, Reconciling, Stalled, Scheduled, Conflict, DeletionBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A snapshot beside this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotRef {
    /// Whose it is.
    pub kind: RefKind,
    /// Its name in libvirt; of a managed one also the name of its Snapshot.
    pub name: String,
}

/// Whose a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RefKind {
    /// A Snapshot's.
    Managed,
    /// Made by somebody else, with virsh for instance.
    Unmanaged,
}

/// A disk of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotDisk {
    /// Its name in the machine.
    pub name: String,
    /// The file that holds it as it was.
    pub path: String,
    /// Bytes that the guest saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
}
