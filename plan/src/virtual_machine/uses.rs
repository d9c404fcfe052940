//! Which volumes a machine names, and the controller's part of its status. Pure.

use crate::names;
use crds::conditions::{Builder, Status, Type, find};
use crds::virtual_machine::{MachinePhase, VirtualMachine, VirtualMachineStatus};
use crds::{Condition, Teardown, quantity};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Volumes that the machine names, each with whether the guest may write to it.
pub fn volumes(vm: &VirtualMachine) -> BTreeMap<String, bool> {
    let name = vm.metadata.name.as_deref().unwrap_or_default();
    let boot = vm.spec.kernel_boot.iter().flat_map(|boot| [Some(&boot.kernel), boot.initrd.as_ref()]).flatten();
    let mut used: BTreeMap<_, _> = boot.map(|file| (file.volume.clone(), false)).collect();
    for disk in &vm.spec.disks {
        *used.entry(names::disk_volume(name, disk)).or_default() |= !disk.read_only;
    }
    used
}

/// What is promised to the machine: processors in thousandths, memory in bytes.
pub fn demand(vm: &VirtualMachine) -> (u64, u64) {
    let cores = u64::try_from(vm.spec.cpu.cores).unwrap_or(1);
    (cores * 1000, quantity::units(&vm.spec.memory.size).unwrap_or_default())
}

/// Who writes phase, Ready, Reconciling and Stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    /// The controller: the machine is bound to no host.
    Ours,
    /// The host's agent.
    Agents,
    /// The controller took phase and Ready: the host is lost.
    Lost,
}

impl Summary {
    /// Those of the stored conditions that the controller writes.
    pub fn conditions(self, stored: &[Condition]) -> Vec<Condition> {
        let types: &[Type] = match self {
            Summary::Ours => &[Type::Scheduled, Type::Ready, Type::Reconciling, Type::Stalled],
            Summary::Agents => &[Type::Scheduled],
            Summary::Lost => &[Type::Scheduled, Type::Ready],
        };
        stored.iter().filter(|c| types.iter().any(|kind| kind.as_str() == c.type_)).cloned().collect()
    }
}

/// The fields of a stored status that the controller writes.
pub fn controllers(status: &VirtualMachineStatus, summary: Summary) -> VirtualMachineStatus {
    VirtualMachineStatus {
        host: status.host.clone(),
        teardown: crate::teardown::asked(status.teardown.as_ref()),
        observed_generation: status.observed_generation.filter(|_| summary == Summary::Ours),
        phase: status.phase.filter(|_| summary != Summary::Agents),
        conditions: summary.conditions(&status.conditions),
        ..VirtualMachineStatus::default()
    }
}

/// Where a machine's placement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// On this host.
    Bound(String),
    /// Nowhere yet.
    Waiting {
        /// CamelCase word.
        reason: &'static str,
        /// Why, and what to do.
        message: String,
    },
}

/// Whether it is only waited for something that may come in a moment, and that was not told yet.
pub fn may_pass(vm: &VirtualMachine, binding: &Binding) -> bool {
    let told = vm.status.as_ref().and_then(|status| find(&status.conditions, Type::Scheduled));
    match binding {
        Binding::Bound(_) => false,
        Binding::Waiting { reason, .. } => told.is_none_or(|told| told.reason != *reason),
    }
}

/// The controller's whole part of the status.
pub fn bound(
    vm: &VirtualMachine,
    binding: &Binding,
    teardown: Option<Teardown>,
    lost: bool,
    now: Timestamp,
) -> (VirtualMachineStatus, Summary) {
    let none = VirtualMachineStatus::default();
    let previous = &vm.status.as_ref().unwrap_or(&none).conditions;
    let generation = vm.metadata.generation.unwrap_or_default();
    let lost = lost || told_lost(previous);
    let list = Builder::new(previous, generation, now);
    let status = VirtualMachineStatus { teardown, ..VirtualMachineStatus::default() };
    match binding {
        Binding::Bound(host) => {
            // The generation would change with every edit, and with it this status, which says nothing new.
            let kept = previous.iter().find(|c| c.type_ == "Scheduled" && c.status == "True").cloned();
            let list = list.set(Type::Scheduled, Status::True, "Scheduled", format!("bound to host {host}"));
            let list = match lost {
                false => list,
                true => self::lost(list, host),
            };
            let mut conditions = list.build();
            if let Some(kept) = kept {
                conditions.iter_mut().filter(|c| c.type_ == "Scheduled").for_each(|c| c.clone_from(&kept));
            }
            let phase = lost.then_some(MachinePhase::Unknown);
            let summary = if lost { Summary::Lost } else { Summary::Agents };
            (VirtualMachineStatus { host: Some(host.clone()), phase, conditions, ..status }, summary)
        }
        Binding::Waiting { reason, message } => {
            let conditions = list
                .set(Type::Scheduled, Status::False, reason, message.clone())
                .set(Type::Ready, Status::False, reason, message.clone())
                .set(Type::Reconciling, Status::True, reason, message.clone())
                .build();
            let phase = if vm.metadata.deletion_timestamp.is_some() {
                MachinePhase::Terminating
            } else {
                MachinePhase::Pending
            };
            let status = VirtualMachineStatus {
                observed_generation: Some(generation),
                phase: Some(phase),
                conditions,
                ..status
            };
            (status, Summary::Ours)
        }
    }
}

/// Whether users are still told that the host is lost. The controller cannot take its words back: the agent owns the condition's type
/// since before, and a condition with nothing but a type is invalid. It leaves them until the agent puts its own in their place.
pub fn told_lost(conditions: &[Condition]) -> bool {
    find(conditions, Type::Ready).is_some_and(|ready| ready.reason == HOST_LOST)
}

const HOST_LOST: &str = "HostLost";

/// `Ready` of an object whose host is lost.
pub fn lost<'a>(list: Builder<'a>, host: &str) -> Builder<'a> {
    list.set(Type::Ready, Status::Unknown, HOST_LOST, lost_words(host))
}

/// What users are told of a lost host.
fn lost_words(host: &str) -> String {
    format!(
        "host {host} is gone or has not renewed its Lease; what ran there probably still does, nobody can tell; what is being deleted \
         waits for it (when the machine is gone for good: delete its Host, and annotate this with virtfleet.dev/teardown=Orphan)"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn vm(status: serde_json::Value) -> VirtualMachine {
        serde_json::from_value(json!({
            "apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 3},
            "spec": {"cpu": {"cores": 2}, "memory": {"size": "1Gi"},
                "kernelBoot": {"kernel": {"volume": "k"}, "initrd": {"volume": "k"}},
                "disks": [{"name": "a", "volume": "x", "readOnly": true},
                    {"name": "b", "volumeTemplate": {"spec": {"storagePool": "p", "capacity": "1Gi"}}}]},
            "status": status,
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[test]
    fn the_volumes_of_a_machine_are_those_of_its_disks_templates_and_kernel() {
        let named: Vec<_> = volumes(&vm(json!({}))).into_iter().collect();
        assert_eq!(named, [("k".to_owned(), false), ("web-b".into(), true), ("x".into(), false)]);
        assert_eq!(demand(&vm(json!({}))), (2000, 1 << 30));
    }

    #[test]
    fn a_binding_says_nothing_of_the_summary_and_does_not_change_with_the_manifest() {
        let binding = Binding::Bound("node-a".into());
        let (first, summary) = bound(&vm(json!({})), &binding, None, false, now());
        assert_eq!((first.phase, first.observed_generation, summary), (None, None, Summary::Agents));
        let mut later = vm(json!({}));
        later.status = Some(first.clone());
        later.metadata.generation = Some(9);
        let (second, _) = bound(&later, &binding, None, false, Timestamp::MAX);
        assert_eq!(controllers(&first, Summary::Agents), second);
    }

    #[test]
    fn a_lost_host_makes_the_machine_unknown_and_no_other_field_is_taken() {
        let (lost, summary) = bound(&vm(json!({})), &Binding::Bound("node-a".into()), None, true, now());
        assert_eq!((lost.phase, summary), (Some(MachinePhase::Unknown), Summary::Lost));
        let ready = find(&lost.conditions, Type::Ready).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("Unknown", "HostLost"));
        assert_eq!(lost.conditions.len(), 2);
    }

    #[test]
    fn a_host_that_is_back_is_left_to_its_agents_word() {
        let binding = Binding::Bound("node-a".into());
        let mut machine = vm(json!({}));
        machine.status = Some(bound(&machine, &binding, None, true, now()).0);
        let (back, summary) = bound(&machine, &binding, None, false, Timestamp::MAX);
        assert_eq!((Some(back), summary), (machine.status.clone(), Summary::Lost));
        let told = json!([{"type": "Ready", "status": "True", "reason": "Running", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        machine.status.as_mut().unwrap().conditions = serde_json::from_value(told).unwrap();
        assert_eq!(bound(&machine, &binding, None, false, now()).1, Summary::Agents);
    }

    #[test]
    fn a_machine_without_host_is_pending_and_says_why() {
        let waiting = Binding::Waiting { reason: "NoHosts", message: "0 of 0 hosts fit".into() };
        let mut machine = vm(json!({}));
        assert!(may_pass(&machine, &waiting));
        machine.status = Some(bound(&machine, &waiting, None, false, now()).0);
        assert!(!may_pass(&machine, &waiting), "it was told");
        assert!(!may_pass(&vm(json!({})), &Binding::Bound("node-a".into())), "a binding does not wait");
        let (pending, summary) = bound(&vm(json!({})), &waiting, None, false, now());
        assert_eq!(
            (pending.phase, pending.observed_generation, summary),
            (Some(MachinePhase::Pending), Some(3), Summary::Ours)
        );
        assert_eq!(find(&pending.conditions, Type::Scheduled).unwrap().reason, "NoHosts");
        assert_eq!(controllers(&pending, Summary::Ours), pending);
    }
}
