//! Which snapshots may have other words to say once something beside them has changed. Pure. Looking at all of a machine's would make the
//! next one wait for as many looks as it has.

use crds::conditions::{Type, find};
use crds::snapshot::{Snapshot, SnapshotStatus};
use crds::virtual_machine::VirtualMachine;
use kube::ResourceExt;

/// Whether it is to go, or is not what its manifest says: it may wait for what has changed.
pub fn waits(snapshot: &Snapshot) -> bool {
    let ready = find(conditions(snapshot), Type::Ready);
    snapshot.metadata.deletion_timestamp.is_some() || ready.is_none_or(|ready| ready.status != "True")
}

/// Whether its place is next to the snapshot `name`, or that may now go on where it was current.
pub fn is_beside(snapshot: &Snapshot, name: &str) -> bool {
    let Some(SnapshotStatus { parent, children, current, .. }) = &snapshot.status else { return true };
    *current == Some(true) || parent.iter().chain(children).any(|other| other.name == name)
}

/// Whether its machine, as it is now, says something else than it does.
pub fn differs(snapshot: &Snapshot, vm: &VirtualMachine) -> bool {
    let of_machine = vm.status.as_ref().and_then(|status| status.snapshots.as_ref());
    let current = of_machine.and_then(|told| told.current.as_deref()) == Some(&*snapshot.name_any());
    let told = snapshot.status.as_ref().and_then(|status| status.current).unwrap_or_default();
    let owners = snapshot.owner_references();
    current != told || !owners.iter().any(|owner| Some(&owner.uid) == vm.metadata.uid.as_ref())
}

fn conditions(snapshot: &Snapshot) -> &[crds::Condition] {
    snapshot.status.as_ref().map(|status| &*status.conditions).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn snapshot(status: Value) -> Snapshot {
        let owner = json!({"apiVersion": "v1", "kind": "VirtualMachine", "name": "web", "uid": "vm"});
        serde_json::from_value(json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "Snapshot", "status": status,
            "metadata": {"name": "s1", "ownerReferences": [owner]}, "spec": {"virtualMachine": "web"}}))
        .unwrap()
    }

    fn ready(is: &str) -> Value {
        json!([{"type": "Ready", "status": is, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    }

    fn machine(current: Value) -> VirtualMachine {
        serde_json::from_value(json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"name": "web", "uid": "vm"}, "spec": {"cpu": {}, "memory": {"size": "1Gi"}},
            "status": {"snapshots": {"count": 2, "current": current}}}))
        .unwrap()
    }

    #[test]
    fn only_those_that_wait_stand_beside_or_are_told_otherwise_are_looked_at() {
        let settled = |current: bool| {
            snapshot(json!({"conditions": ready("True"), "current": current,
            "parent": {"kind": "Managed", "name": "s0"}, "children": [{"kind": "Managed", "name": "s2"}]}))
        };
        assert!(!waits(&settled(false)));
        assert!(waits(&snapshot(json!({"conditions": ready("False")}))) && waits(&snapshot(json!({}))));
        let mut going = settled(false);
        going.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert!(waits(&going), "it may wait for what has changed");
        let beside = ["s0", "s2", "s3"].map(|name| is_beside(&settled(false), name));
        assert_eq!(beside, [true, true, false]);
        assert!(is_beside(&settled(true), "s3"), "the new one goes on from it");
        assert!(!differs(&settled(true), &machine(json!("s1"))) && !differs(&settled(false), &machine(json!("s2"))));
        assert!(differs(&settled(false), &machine(json!("s1"))) && differs(&settled(true), &machine(Value::Null)));
        let mut another = machine(json!("s2"));
        another.metadata.uid = Some("another".into());
        assert!(differs(&settled(false), &another), "its machine was made anew");
    }
}
