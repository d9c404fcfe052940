//! Who uses a volume, who may write to it, on which host it lies: the controller's part of its status. Pure.

use crate::names;
use crate::virtual_machine::uses;
use crate::virtual_machine::uses::told_lost;
use crds::conditions::{Builder, Status, Type};
use crds::storage_volume::{Claim, StorageVolume, StorageVolumeStatus, VolumePhase};
use crds::virtual_machine::VirtualMachine;
use crds::{Teardown, TeardownPolicy};
use jiff::Timestamp;

pub use crate::virtual_machine::uses::Summary;

/// What the volume's users mean for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// Names of the machines that name it, sorted.
    pub used_by: Vec<String>,
    /// The one that may write.
    pub claimed_by: Option<Claim>,
    /// Where it lies or shall lie.
    pub host: Option<String>,
    /// The machine that it is placed with.
    pub consumer: Option<String>,
}

/// Reads the machines of the volume's namespace.
pub fn binding<'a>(volume: &StorageVolume, machines: impl IntoIterator<Item = &'a VirtualMachine>) -> Binding {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let none = StorageVolumeStatus::default();
    let status = volume.status.as_ref().unwrap_or(&none);
    // Name, whether it writes, and the machine.
    let mut users: Vec<(bool, &VirtualMachine)> = machines
        .into_iter()
        .filter_map(|vm| {
            let named = uses::volumes(vm).get(&name).copied().filter(|_| !is_anothers(volume, vm));
            // A disk that was taken out of the manifest is the guest's until it stops.
            let attached = attached(vm, status.path.as_deref());
            (named.is_some() || attached).then_some((named.unwrap_or_default() || attached, vm))
        })
        .collect();
    // The oldest first, so that equal looks give equal claims.
    users.sort_by_key(|(_, vm)| {
        (vm.metadata.creation_timestamp.clone().map(|t| t.0), vm.metadata.name.clone(), vm.metadata.uid.clone())
    });
    let claim = |vm: &VirtualMachine| Claim {
        name: vm.metadata.name.clone().unwrap_or_default(),
        uid: vm.metadata.uid.clone().unwrap_or_default(),
    };
    let writers = || users.iter().filter(|(writes, _)| *writes).map(|(_, vm)| *vm);
    let holder = writers().find(|vm| status.claimed_by == Some(claim(vm)));
    let next = || writers().find(|vm| vm.metadata.deletion_timestamp.is_none());
    let claimant = holder.or_else(next);
    let consumer = claimant.or(users.first().map(|(_, vm)| *vm));
    let mut used_by: Vec<String> = users.iter().filter_map(|(_, vm)| vm.metadata.name.clone()).collect();
    used_by.sort();
    let with_consumer = consumer.and_then(|vm| vm.status.as_ref()?.host.clone());
    Binding {
        used_by,
        claimed_by: claimant.map(claim),
        host: status.host.clone().or_else(|| volume.spec.host.clone()).or(with_consumer),
        consumer: consumer.and_then(|vm| vm.metadata.name.clone()),
    }
}

/// Whether the machine has a template by the volume's name, which was made for another one: of the same name, say, that was deleted a moment
/// ago. It waits for that volume's end, which must not wait for it.
fn is_anothers(volume: &StorageVolume, vm: &VirtualMachine) -> bool {
    let name = vm.metadata.name.as_deref().unwrap_or_default();
    let mut of_name =
        vm.spec.disks.iter().filter(|disk| Some(names::disk_volume(name, disk)) == volume.metadata.name).peekable();
    let owners = volume.metadata.owner_references.iter().flatten();
    let is_own = owners.into_iter().any(|owner| Some(&owner.uid) == vm.metadata.uid.as_ref());
    !is_own && of_name.peek().is_some() && of_name.all(|disk| disk.volume_template.is_some())
}

fn attached(vm: &VirtualMachine, path: Option<&str>) -> bool {
    let disks = vm.status.iter().flat_map(|status| &status.disks);
    disks.into_iter().any(|disk| path.is_some_and(|path| names::is_same_volume(&disk.path, path)))
}

/// The fields of a stored status that the controller writes.
pub fn controllers(status: &StorageVolumeStatus, summary: Summary) -> StorageVolumeStatus {
    StorageVolumeStatus {
        host: status.host.clone(),
        used_by: status.used_by.clone(),
        claimed_by: status.claimed_by.clone(),
        teardown: crate::teardown::asked(status.teardown.as_ref()),
        observed_generation: status.observed_generation.filter(|_| summary == Summary::Ours),
        phase: status.phase.filter(|_| summary != Summary::Agents),
        conditions: summary.conditions(&status.conditions),
        ..StorageVolumeStatus::default()
    }
}

/// Why a volume cannot be bound though it has a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// CamelCase word.
    pub reason: &'static str,
    /// What to do.
    pub message: String,
}

/// The controller's whole part of the status.
pub fn status(
    volume: &StorageVolume,
    binding: &Binding,
    trouble: Option<&Trouble>,
    teardown: Option<Teardown>,
    lost: bool,
    now: Timestamp,
) -> (StorageVolumeStatus, Summary) {
    let none = StorageVolumeStatus::default();
    let stored = volume.status.as_ref().unwrap_or(&none);
    let generation = volume.metadata.generation.unwrap_or_default();
    let list = Builder::new(&stored.conditions, generation, now);
    // A volume that is bound stays so: its data is there.
    let host = match (&stored.host, trouble) {
        (Some(host), _) => Some(host.clone()),
        (None, None) => binding.host.clone(),
        (None, Some(_)) => None,
    };
    let base = StorageVolumeStatus {
        host: host.clone(),
        used_by: binding.used_by.clone(),
        claimed_by: binding.claimed_by.clone(),
        teardown,
        ..StorageVolumeStatus::default()
    };
    let Some(host) = host else {
        let waits = Trouble {
            reason: "WaitForFirstConsumer",
            message: match &binding.consumer {
                None => "it is made on the host of the first machine that names it; or set spec.host".into(),
                Some(vm) => format!("it is made on the host of machine {vm}, which has none yet"),
            },
        };
        let Trouble { reason, message } = trouble.unwrap_or(&waits);
        let conditions = list
            .set(Type::Scheduled, Status::False, reason, message.clone())
            .set(Type::Ready, Status::False, reason, message.clone())
            .set(Type::Reconciling, Status::True, reason, message.clone())
            .build();
        let status = StorageVolumeStatus {
            phase: Some(VolumePhase::Pending),
            observed_generation: Some(generation),
            conditions,
            ..base
        };
        return (status, Summary::Ours);
    };
    let kept = stored.conditions.iter().find(|c| c.type_ == "Scheduled" && c.status == "True").cloned();
    let list = list.set(Type::Scheduled, Status::True, "Scheduled", format!("bound to host {host}"));
    let lost = lost || told_lost(&stored.conditions);
    let list = if lost { uses::lost(list, &host) } else { list };
    let mut conditions = list.build();
    if let Some(kept) = kept {
        conditions.iter_mut().filter(|c| c.type_ == "Scheduled").for_each(|c| c.clone_from(&kept));
    }
    let phase = lost.then_some(VolumePhase::Unknown);
    (StorageVolumeStatus { phase, conditions, ..base }, if lost { Summary::Lost } else { Summary::Agents })
}

/// What the volume's own spec says of its file.
pub fn policy(volume: &StorageVolume) -> TeardownPolicy {
    match volume.spec.deletion_policy {
        crds::storage_volume::DeletionPolicy::Retain => TeardownPolicy::Retain,
        crds::storage_volume::DeletionPolicy::Delete => TeardownPolicy::Delete,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn vm(name: &str, created: &str, host: Option<&str>, read_only: bool) -> VirtualMachine {
        serde_json::from_value(json!({
            "apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "creationTimestamp": created},
            "spec": {"cpu": {}, "memory": {"size": "1Gi"}, "disks": [{"name": "root", "volume": "v", "readOnly": read_only}]},
            "status": {"host": host},
        }))
        .unwrap()
    }

    fn volume(status: serde_json::Value) -> StorageVolume {
        serde_json::from_value(json!({
            "apiVersion": "virtfleet.dev/v1alpha1", "kind": "StorageVolume",
            "metadata": {"name": "v", "namespace": "shop"},
            "spec": {"storagePool": "images", "capacity": "1Gi"},
            "status": status,
        }))
        .unwrap()
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn the_oldest_writer_gets_the_claim_and_keeps_it() {
        let (old, new) = (vm("b", EARLY, None, false), vm("a", LATE, Some("node-a"), false));
        let first = binding(&volume(json!({})), [&new, &old]);
        assert_eq!(first.claimed_by.as_ref().unwrap().name, "b");
        assert_eq!((first.used_by, first.host), (vec!["a".to_owned(), "b".into()], None));
        let held = volume(json!({"claimedBy": {"name": "a", "uid": "uid-a"}}));
        assert_eq!(binding(&held, [&new, &old]).claimed_by.unwrap().name, "a");
    }

    #[test]
    fn readers_claim_nothing_and_the_first_of_them_decides_the_host() {
        let (old, new) = (vm("b", EARLY, Some("node-b"), true), vm("a", LATE, Some("node-a"), true));
        let read = binding(&volume(json!({})), [&new, &old]);
        assert_eq!((read.claimed_by, read.host.as_deref()), (None, Some("node-b")));
    }

    #[test]
    fn a_bound_volume_stays_where_it_is_whoever_names_it() {
        let bound = volume(json!({"host": "node-a"}));
        let there = binding(&bound, [&vm("a", EARLY, Some("node-b"), false)]);
        assert_eq!((there.host.as_deref(), there.consumer.as_deref()), (Some("node-a"), Some("a")));
    }

    #[test]
    fn a_disk_that_the_guest_still_has_keeps_its_claim_after_the_manifest_dropped_it() {
        let mut keeper = vm("a", LATE, Some("node-a"), false);
        keeper.spec.disks.clear();
        keeper.status.as_mut().unwrap().disks =
            vec![crds::virtual_machine::DiskStatus { name: "root".into(), target: "vda".into(), path: "/p/v".into() }];
        let held = volume(json!({"claimedBy": {"name": "a", "uid": "uid-a"}, "path": "/p/v"}));
        let other = vm("b", EARLY, None, false);
        assert_eq!(binding(&held, [&keeper, &other]).claimed_by.unwrap().name, "a");
        // Also when the guest writes into an overlay over the volume's file.
        keeper.status.as_mut().unwrap().disks[0].path = "/p/shop.v-0a1b2c3d.before-00000000".into();
        let held = volume(json!({"claimedBy": {"name": "a", "uid": "uid-a"}, "path": "/p/shop.v-0a1b2c3d.qcow2"}));
        assert_eq!(binding(&held, [&keeper, &other]).claimed_by.unwrap().name, "a");
    }

    #[test]
    fn a_recreated_machine_of_the_same_name_must_claim_anew() {
        let held = volume(json!({"claimedBy": {"name": "a", "uid": "uid-of-the-old-a"}}));
        assert_eq!(binding(&held, [&vm("a", LATE, None, false)]).claimed_by.unwrap().uid, "uid-a");
        assert_eq!(binding(&held, []).claimed_by, None);
        let (new, older) = (vm("a", LATE, None, false), vm("b", EARLY, None, false));
        assert_eq!(binding(&held, [&new, &older]).claimed_by.unwrap().name, "b", "it is no heir");
    }

    #[test]
    fn a_template_volume_that_goes_is_not_held_by_the_next_machine_of_the_name() {
        let owner = |uid: &str| json!([{"apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine", "name": "a", "uid": uid}]);
        let of = |uid: &str| {
            let mut volume = volume(json!({"host": "node-a"}));
            volume.metadata.name = Some("a-root".into());
            volume.metadata.owner_references = serde_json::from_value(owner(uid)).unwrap();
            volume
        };
        let mut vm = vm("a", LATE, None, false);
        vm.spec.disks = serde_json::from_value(
            json!([{"name": "root", "volumeTemplate": {"spec": {"storagePool": "images", "capacity": "1Gi"}}}]),
        )
        .unwrap();
        let others = binding(&of("uid-of-the-old-a"), [&vm]);
        assert_eq!((others.used_by, others.claimed_by), (vec![], None));
        let own = binding(&of("uid-a"), [&vm]);
        assert_eq!((own.used_by, own.claimed_by.unwrap().uid), (vec!["a".to_owned()], "uid-a".into()));
    }

    #[test]
    fn binding_hands_the_summary_over() {
        let (waiting, summary) =
            status(&volume(json!({})), &Binding::default(), None, None, false, Timestamp::UNIX_EPOCH);
        assert_eq!((waiting.phase, summary), (Some(VolumePhase::Pending), Summary::Ours));
        assert_eq!(crds::conditions::find(&waiting.conditions, Type::Ready).unwrap().reason, "WaitForFirstConsumer");
        let on_host = Binding { host: Some("node-a".into()), ..Binding::default() };
        let (bound, summary) = status(&volume(json!({})), &on_host, None, None, false, Timestamp::UNIX_EPOCH);
        assert_eq!((bound.phase, bound.host.as_deref(), summary), (None, Some("node-a"), Summary::Agents));
        assert_eq!(bound.conditions.len(), 1);
    }
}
