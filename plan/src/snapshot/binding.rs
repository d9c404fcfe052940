//! On which host a snapshot is, and the controller's part of its status. Pure.

use crate::virtual_machine::uses::{self, Summary, told_lost};
use crds::conditions::{Builder, Status, Type};
use crds::snapshot::{DeletionPolicy, Snapshot, SnapshotPhase, SnapshotStatus};
use crds::virtual_machine::VirtualMachine;
use crds::{Teardown, TeardownPolicy};
use jiff::Timestamp;

/// Where a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// On the host of its machine.
    Bound(String),
    /// Nowhere yet.
    Waiting {
        /// CamelCase word.
        reason: &'static str,
        /// Why, and what to do.
        message: String,
    },
}

/// Reads the machine that the snapshot names.
pub fn binding(snapshot: &Snapshot, machine: Option<&VirtualMachine>) -> Binding {
    let name = &snapshot.spec.virtual_machine;
    let stored = snapshot.status.as_ref().and_then(|status| status.host.clone());
    let host = machine.and_then(|vm| vm.status.as_ref()?.host.clone());
    match (stored.or(host), machine) {
        (Some(host), _) => Binding::Bound(host),
        (None, Some(_)) => Binding::Waiting {
            reason: "MachineNotScheduled",
            message: format!("machine {name} is on no host yet; kubectl describe vm {name} says why"),
        },
        (None, None) => Binding::Waiting {
            reason: "MachineNotFound",
            message: format!("there is no VirtualMachine {name}; make it"),
        },
    }
}

/// The fields of a stored status that the controller writes.
pub fn controllers(status: &SnapshotStatus, summary: Summary) -> SnapshotStatus {
    SnapshotStatus {
        host: status.host.clone(),
        teardown: crate::teardown::asked(status.teardown.as_ref()),
        observed_generation: status.observed_generation.filter(|_| summary == Summary::Ours),
        phase: status.phase.filter(|_| summary != Summary::Agents),
        conditions: summary.conditions(&status.conditions),
        ..SnapshotStatus::default()
    }
}

/// The controller's whole part of the status.
pub fn status(
    snapshot: &Snapshot,
    binding: &Binding,
    teardown: Option<Teardown>,
    lost: bool,
    now: Timestamp,
) -> (SnapshotStatus, Summary) {
    let none = SnapshotStatus::default();
    let previous = &snapshot.status.as_ref().unwrap_or(&none).conditions;
    let generation = snapshot.metadata.generation.unwrap_or_default();
    let list = Builder::new(previous, generation, now);
    let base = SnapshotStatus { teardown, ..SnapshotStatus::default() };
    let host = match binding {
        Binding::Bound(host) => host,
        Binding::Waiting { reason, message } => {
            let conditions = list
                .set(Type::Scheduled, Status::False, reason, message.clone())
                .set(Type::Ready, Status::False, reason, message.clone())
                .set(Type::Reconciling, Status::True, reason, message.clone())
                .build();
            let phase = Some(SnapshotPhase::Pending);
            return (
                SnapshotStatus { observed_generation: Some(generation), phase, conditions, ..base },
                Summary::Ours,
            );
        }
    };
    let kept = previous.iter().find(|c| c.type_ == "Scheduled" && c.status == "True").cloned();
    let list = list.set(Type::Scheduled, Status::True, "Scheduled", format!("on host {host}, as its machine is"));
    let lost = lost || told_lost(previous);
    let mut conditions = if lost { uses::lost(list, host) } else { list }.build();
    // A new generation alone is no news of where it is.
    if let Some(kept) = kept {
        conditions.iter_mut().filter(|c| c.type_ == "Scheduled").for_each(|c| c.clone_from(&kept));
    }
    let phase = lost.then_some(SnapshotPhase::Unknown);
    let summary = if lost { Summary::Lost } else { Summary::Agents };
    (SnapshotStatus { host: Some(host.clone()), phase, conditions, ..base }, summary)
}

/// What the snapshot's own spec says of it.
pub fn policy(snapshot: &Snapshot) -> TeardownPolicy {
    match snapshot.spec.deletion_policy {
        DeletionPolicy::Delete => TeardownPolicy::Delete,
        DeletionPolicy::Retain => TeardownPolicy::Retain,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn snapshot(status: serde_json::Value) -> Snapshot {
        serde_json::from_value(json!({
            "apiVersion": "virtfleet.dev/v1alpha1", "kind": "Snapshot",
            "metadata": {"name": "before", "namespace": "shop", "generation": 1},
            "spec": {"virtualMachine": "web"}, "status": status,
        }))
        .unwrap()
    }

    fn machine(host: Option<&str>) -> VirtualMachine {
        serde_json::from_value(json!({
            "apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"cpu": {}, "memory": {"size": "1Gi"}}, "status": {"host": host},
        }))
        .unwrap()
    }

    #[test]
    fn a_snapshot_is_where_its_machine_is_and_stays_there() {
        let new = snapshot(json!({}));
        let reason = |binding: Binding| match binding {
            Binding::Bound(host) => host,
            Binding::Waiting { reason, .. } => reason.into(),
        };
        assert_eq!(reason(binding(&new, None)), "MachineNotFound");
        assert_eq!(reason(binding(&new, Some(&machine(None)))), "MachineNotScheduled");
        assert_eq!(reason(binding(&new, Some(&machine(Some("node-a"))))), "node-a");
        let bound = snapshot(json!({"host": "node-a"}));
        assert_eq!(reason(binding(&bound, None)), "node-a");
        assert_eq!(reason(binding(&bound, Some(&machine(Some("node-b"))))), "node-a");
    }

    #[test]
    fn a_binding_hands_the_summary_over_and_says_nothing_new_later() {
        let here = Binding::Bound("node-a".into());
        let (first, summary) = status(&snapshot(json!({})), &here, None, false, Timestamp::UNIX_EPOCH);
        assert_eq!((first.phase, first.conditions.len(), summary), (None, 1, Summary::Agents));
        let mut later = snapshot(json!({}));
        later.status = Some(first.clone());
        later.metadata.generation = Some(2);
        let (second, _) = status(&later, &here, None, false, Timestamp::MAX);
        assert_eq!(controllers(&first, Summary::Agents), second);
        let (lost, summary) = status(&later, &here, None, true, Timestamp::MAX);
        assert_eq!((lost.phase, lost.conditions.len(), summary), (Some(SnapshotPhase::Unknown), 2, Summary::Lost));
    }
}
