//! Where a disk's template says otherwise than the volume that the disk has. A template makes its volume once; what was made stays. Pure.

use crate::names;
use crds::quantity;
use crds::storage_volume::StorageVolumeSpec;
use crds::virtual_machine::VirtualMachine;

/// Fields of the templates that name this volume which differ from what it is; its capacity may have grown.
pub fn differs(vm: &VirtualMachine, volume: &str, is: &StorageVolumeSpec) -> Vec<&'static str> {
    let name = vm.metadata.name.as_deref().unwrap_or_default();
    let disk = vm.spec.disks.iter().find(|disk| names::disk_volume(name, disk) == volume);
    let Some(template) = disk.and_then(|disk| disk.volume_template.as_ref()).map(|template| &template.spec) else {
        return Vec::new();
    };
    let units = |size: &Option<_>| size.as_ref().and_then(quantity::units);
    let fields = [
        ("storagePool", template.storage_pool != is.storage_pool),
        ("capacity", units(&template.capacity) > units(&is.capacity)),
        ("format", template.format != is.format),
        ("allocation", template.allocation != is.allocation),
        ("source", template.source != is.source),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_template_that_is_not_what_its_volume_was_made_of_is_told_field_by_field() {
        let image = |url: &str| json!({"http": {"url": url, "checksum": format!("sha256:{}", "0".repeat(64))}});
        let is = json!({"storagePool": "p", "capacity": "2Gi", "format": "Raw", "source": image("https://a/1")});
        let vm = |disk: Value| -> VirtualMachine {
            serde_json::from_value(json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine",
                "metadata": {"name": "web"}, "spec": {"cpu": {}, "memory": {"size": "1Gi"}, "disks": [disk]}}))
            .unwrap()
        };
        let told = |field: &str, value: Value| {
            let mut template = is.clone();
            template[field] = value;
            let vm = vm(json!({"name": "root", "volumeTemplate": {"spec": template}}));
            differs(&vm, "web-root", &serde_json::from_value(is.clone()).unwrap())
        };
        for (field, value, differs) in [
            ("storagePool", json!("p"), false),
            ("storagePool", json!("q"), true),
            ("capacity", json!("2048Mi"), false),
            // It was grown since.
            ("capacity", json!("1Gi"), false),
            ("capacity", json!("3Gi"), true),
            ("format", json!("Qcow2"), true),
            ("allocation", json!("Full"), true),
            ("source", image("https://a/2"), true),
            // What becomes of it later is its own object's to say.
            ("deletionPolicy", json!("Retain"), false),
        ] {
            let expected: &[&str] = if differs { &[field] } else { &[] };
            assert_eq!(told(field, value.clone()), expected, "{field} {value}");
        }
        let named = vm(json!({"name": "root", "volume": "web-root"}));
        assert!(differs(&named, "web-root", &serde_json::from_value(is).unwrap()).is_empty());
    }
}
