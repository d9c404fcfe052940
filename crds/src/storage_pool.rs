//! StoragePool: a directory on each of the selected hosts that volumes live in.

use crate::{Condition, Quantity, Teardown};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place for volumes on the hosts that the selector matches. The libvirt pool has the name of this object.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "virtfleet.dev",
    version = "v1alpha1",
    kind = "StoragePool",
    plural = "storagepools",
    shortname = "pool",
    shortname = "pools",
    category = "virt",
    status = "StoragePoolStatus",
    derive = "PartialEq",
    printcolumn(name = "Type", json_path = ".status.type", type_ = "string"),
    printcolumn(name = "Hosts", json_path = ".status.hosts.ready", type_ = "integer"),
    printcolumn(name = "Capacity", json_path = ".status.capacity", type_ = "string"),
    printcolumn(name = "Available", json_path = ".status.available", type_ = "string"),
    printcolumn(name = "Ready", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, type_ = "string"),
    printcolumn(name = "Age", json_path = ".metadata.creationTimestamp", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.dir) == has(oldSelf.dir) && self.dir == oldSelf.dir")
    .message("dir cannot be changed: volumes already lie there; make another pool")
    .field_path(".dir")
    .reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("self.shared == oldSelf.shared")
    .message("shared cannot be changed; make another pool")
    .field_path(".shared")
    .reason(Reason::FieldValueForbidden))]
pub struct StoragePoolSpec {
    /// Labels of the Hosts that have this pool. Empty: all hosts. One that is no longer selected keeps the pool while volumes are in it.
    #[serde(default)]
    pub host_selector: LabelSelector,
    /// A directory. Its path must lie below a root that the host's agent allows (`--pool-root`, or `agent.poolRoots` of the chart). Cannot
    /// be changed.
    pub dir: Directory,
    /// Whether the directory holds the same bytes on every host, as on NFS: then its volumes tie no machine to a host. Cannot be changed.
    #[serde(default)]
    pub shared: bool,
    /// Whether libvirt starts the pool when it starts itself.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// Labels of the namespaces that may make volumes in it. Empty: all namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// What becomes of the directory when this object is deleted, which waits until no StorageVolume names the pool. A directory that is not
    /// empty then stays in any case.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// A directory on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Directory {
    /// Absolute path, without `.` or `..`. Made when absent.
    #[schemars(length(min = 2, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && self.split('/').filter(p, p != '').size() > 0 && !self.split('/').exists(p, p == '.' || p == '..')")
        .message("path must be absolute and hold no '.' or '..', such as /var/lib/virtfleet/images"))]
    #[x_kube(validation = Rule::new("self.matches('^[-A-Za-z0-9_./]+$')")
        .message("path may hold letters, digits, '-', '_', '.' and '/' only"))]
    pub path: String,
}

/// What becomes of the data when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is kept.
    #[default]
    Retain,
    /// It is removed.
    Delete,
}

/// What is so, summed over the pool's hosts. Written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoragePoolStatus {
    /// Generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Kind of pool: `dir`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// How many hosts should have it and how many do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<PoolHosts>,
    /// Bytes in the file systems below, summed over the hosts (a shared pool counts once).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Quantity>,
    /// Bytes in use there, by anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Quantity>,
    /// Bytes free there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<Quantity>,
    /// Number of StorageVolumes that name this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<i64>,
    /// The deletion under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<Teardown>,
    /// Ready, Reconciling, Degraded, NearFull, DeletionBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Hosts of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolHosts {
    /// Hosts that the selector matches.
    pub desired: i64,
    /// Hosts where the pool is active as the spec says.
    pub ready: i64,
}

fn yes() -> bool {
    true
}
