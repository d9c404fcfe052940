//! The manifests that stories apply. Reads the guest's checksums.

use super::Story;
use crate::shell::output;
use serde_json::{Value, json};

impl Story {
    /// An image of the test guest: URL and checksum of `guest.qcow2`, `vmlinuz` or `initrd.gz`, served as `how` says.
    pub fn image(&self, how: &str, file: &str) -> Value {
        let sums = output(&["sha256sum", &self.run.guest.join(file).to_string_lossy()]).unwrap_or_default();
        let sum = sums.split_whitespace().next().unwrap_or_default();
        let slash = if how.is_empty() { "" } else { "/" };
        json!({"url": format!("{}{slash}{how}/{file}", self.run.images()), "checksum": format!("sha256:{sum}")})
    }

    /// Manifest of a volume in the story's pool.
    pub fn volume_manifest(&self, name: &str, spec: Value) -> Value {
        manifest("StorageVolume", name, merged(json!({"storagePool": self.namespace}), spec))
    }

    /// Manifest of a machine without an operating system: it runs, and hears no request to shut down.
    pub fn bare(&self, name: &str, spec: Value) -> Value {
        let base = json!({"cpu": {}, "memory": {"size": "32Mi"}, "shutdown": {"timeoutSeconds": 1}});
        manifest("VirtualMachine", name, merged(base, spec))
    }

    /// Manifest of a machine with the test guest on its disk, made of a template.
    pub fn guest(&self, name: &str, spec: Value) -> Value {
        let template =
            json!({"spec": {"storagePool": self.namespace, "source": {"http": self.image("", "guest.qcow2")}}});
        let base = json!({
            "cpu": {}, "memory": {"size": "192Mi"}, "guestAgent": {},
            "disks": [{"name": "root", "bootOrder": 1, "volumeTemplate": template}],
            "interfaces": [{"name": "lan", "user": {}}],
        });
        manifest("VirtualMachine", name, merged(base, spec))
    }
}

/// A manifest of one of our kinds.
pub fn manifest(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// `base` with the fields of `over` in place of its own, one level deep.
pub fn merged(mut base: Value, over: Value) -> Value {
    if let (Some(base), Value::Object(over)) = (base.as_object_mut(), over) {
        base.extend(over);
    }
    base
}
