//! The API types of group `virtfleet.dev`, one file a kind, with the rules that the API server itself checks (CEL).
//! No I/O. `crdgen` writes them as CustomResourceDefinitions into `charts/virtfleet-crds`, and for
//! users into `docs/reference.md`: what stands above a field here is what `kubectl explain` says.

pub mod conditions;
pub mod definitions;
pub mod host;
pub mod quantity;
pub mod snapshot;
pub mod storage_pool;
pub mod storage_volume;
pub mod teardown;
pub mod virtual_machine;

pub use host::{Host, HostSpec, HostStatus};
pub use snapshot::{Snapshot, SnapshotSpec, SnapshotStatus};
pub use storage_pool::{StoragePool, StoragePoolSpec, StoragePoolStatus};
pub use storage_volume::{StorageVolume, StorageVolumeSpec, StorageVolumeStatus};
pub use teardown::{Teardown, TeardownPolicy};
pub use virtual_machine::{VirtualMachine, VirtualMachineSpec, VirtualMachineStatus};

pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// API group of all kinds.
pub const GROUP: &str = "virtfleet.dev";
/// The one finalizer: added by the controller before placement, removed by it when the teardown is done.
pub const FINALIZER: &str = "virtfleet.dev/teardown";
/// Annotation on any object: `Orphan` makes its deletion leave domain and files as they are, without our mark.
pub const TEARDOWN_ANNOTATION: &str = "virtfleet.dev/teardown";
/// Annotation on a VirtualMachine: each new value restarts the guest once.
pub const RESTARTED_AT_ANNOTATION: &str = "virtfleet.dev/restartedAt";
/// Label on a Node: the controller makes a Host of its name.
pub const HOST_LABEL: &str = "virtfleet.dev/host";
/// Namespace of the hosts' ServiceAccounts and Leases.
pub const HOSTS_NAMESPACE: &str = "virtfleet-hosts";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// Puts a field that no version knows yet into every object.
    fn later(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(later);
                fields.insert("ofALaterVersion".into(), json!({"a": 1}));
            }
            Value::Array(items) => items.iter_mut().for_each(later),
            _ => {}
        }
    }

    fn reads<K: serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(spec: Value) {
        let mut with_more = spec.clone();
        later(&mut with_more);
        assert_eq!(serde_json::from_value::<K>(with_more).unwrap(), serde_json::from_value::<K>(spec).unwrap());
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let source = json!({"http": {"url": "https://images/a", "insecure": true}});
        let template = json!({"spec": {"storagePool": "p", "source": source}});
        reads::<VirtualMachineSpec>(json!({
            "placement": {"host": "a", "hostSelector": {}}, "cpu": {}, "memory": {"size": "1Gi"}, "machine": {},
            "kernelBoot": {"kernel": {"volume": "k"}, "initrd": {"volume": "i"}}, "guestAgent": {}, "shutdown": {},
            "disks": [{"name": "root", "volumeTemplate": template}], "interfaces": [{"name": "lan", "user": {}}],
        }));
        reads::<StorageVolumeSpec>(json!({"storagePool": "p", "source": source}));
        reads::<StoragePoolSpec>(json!({"dir": {"path": "/p"}, "hostSelector": {}, "namespaceSelector": {}}));
        reads::<SnapshotSpec>(json!({"virtualMachine": "web", "disks": {"include": ["root"]}}));
        reads::<HostSpec>(json!({"overcommit": {}, "reserved": {}}));
    }
}
