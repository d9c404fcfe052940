//! Snapshots of running and stopped machines, in files of their own or within the disks' own.

use crds::snapshot::{SnapshotPower, UsedMethod};
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn a_running_machine_goes_on_in_overlays_that_are_closed_to_others() {
    let story = Story::new("extern").await;
    let disks = [("root", "Raw"), ("data", "Raw"), ("scratch", "Qcow2")];
    story.apply(story.with_disks("web", &disks, json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let before = story.sources("web");
    for disk in ["root", "data"] {
        story.write("web", disk, 65, "0", "4k").unwrap();
    }
    let id = story.virsh("node-a", &["domid", "extern.web"]).unwrap();
    let spec = json!({"disks": {"exclude": ["scratch"]}});
    let taken = story.take("before", "web", spec).await.status.unwrap();
    assert_eq!(
        (taken.method, taken.power_state, taken.current, taken.host.as_deref()),
        (Some(UsedMethod::External), Some(SnapshotPower::Running), Some(true), Some("node-a"))
    );
    let told: Vec<_> = taken.disks.iter().map(|disk| (disk.name.as_str(), disk.path.clone())).collect();
    assert_eq!(told, [("root", before[0].clone()), ("data", before[1].clone())]);
    assert!(taken.disks.iter().all(|disk| disk.size.as_ref().is_some_and(|size| size.0 == "64Mi")), "{taken:?}");

    let after = story.sources("web");
    assert_eq!((after[2].as_str(), after[0] != before[0], after[1] != before[1]), (before[2].as_str(), true, true));
    for disk in ["root", "data"] {
        story.write("web", disk, 66, "8k", "4k").unwrap();
    }
    for path in &before[..2] {
        assert_eq!((story.byte(path, 0).unwrap(), story.byte(path, 8192).unwrap()), (65, 0), "{path} is as it was");
    }
    let files = story.pool_files();
    assert!(files.len() == 5 && files.iter().all(|(_, mode, _)| *mode == 0o600), "{files:?}");
    assert_eq!(story.virsh("node-a", &["domid", "extern.web"]).unwrap(), id, "the guest ran on");
    let status = until("the machine's snapshots", async || {
        let status = story.vm("web").await.and_then(|vm| vm.status).unwrap_or_default();
        if status.snapshots.is_some() { Ok(status) } else { Err("none") }
    })
    .await;
    let snapshots = status.snapshots.unwrap();
    assert_eq!((snapshots.count, snapshots.current.as_deref()), (1, Some("before")));

    // It stays on its overlays, whatever happens to it.
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Stopped", "memory": {"size": "48Mi"}}})).await;
    story.vm_is("web", "True", "Stopped").await;
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Running"}})).await;
    let vm = story.vm_is("web", "True", "Running").await;
    assert_eq!(vm.status.unwrap().resources.unwrap().memory.0, "48Mi");
    assert_eq!(story.sources("web"), after);
    story.end().await;
}

#[tokio::test]
async fn a_stopped_machine_keeps_its_overlays_closed_too() {
    let story = Story::new("externoff").await;
    let off = json!({"powerState": "Stopped"});
    story.apply(story.with_disks("web", &[("root", "Raw"), ("data", "Qcow2")], off)).await.unwrap();
    story.vm_is("web", "True", "Stopped").await;
    let taken = story.take("before", "web", json!({"disks": {"include": ["root"]}})).await.status.unwrap();
    assert_eq!((taken.method, taken.power_state), (Some(UsedMethod::External), Some(SnapshotPower::Stopped)));
    let files = story.pool_files();
    assert!(files.len() == 3 && files.iter().all(|(_, mode, _)| *mode == 0o600), "{files:?}");
    let sources = story.sources("web");
    assert!(sources[0].contains(".before-") && sources[1].ends_with(".qcow2"), "{sources:?}");

    // One more on top, and the first merged while the machine is off: nobody takes libvirt's own QEMU for a guest.
    story.take("later", "web", json!({"disks": {"include": ["root"]}})).await;
    story.delete::<crds::Snapshot>("before").await;
    assert_eq!(
        (story.in_libvirt("web"), story.domain("node-a", "externoff.web")),
        (vec!["later".into()], "shut off".into())
    );
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Running"}})).await;
    story.vm_is("web", "True", "Running").await;
    assert!(story.sources("web")[0].contains(".later-"));
    story.end().await;
}

#[tokio::test]
async fn internal_snapshots_want_a_machine_that_is_off_and_no_other_method_beside_them() {
    let story = Story::new("intern").await;
    story.apply(story.with_disks("web", &[("root", "Qcow2"), ("data", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let of_root = json!({"method": "Internal", "disks": {"include": ["root"]}});
    story.apply(story.snapshot_manifest("part", "web", of_root)).await.unwrap();
    story.apply(story.snapshot_manifest("raw", "web", json!({"method": "Internal"}))).await.unwrap();
    story.snapshot_is("part", "False", "PartialInternal").await;
    story.snapshot_is("raw", "False", "RawDisk").await;
    story.delete::<VirtualMachine>("web").await;

    story.apply(story.with_disks("web", &[("root", "Qcow2"), ("data", "Qcow2")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    story.apply(story.snapshot_manifest("inside", "web", json!({"method": "Internal"}))).await.unwrap();
    story.snapshot_is("inside", "False", "GuestIsOn").await;

    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Stopped"}})).await;
    let taken = story.snapshot_is("inside", "True", "Ready").await.status.unwrap();
    assert_eq!((taken.method, taken.power_state), (Some(UsedMethod::Internal), Some(SnapshotPower::Stopped)));
    assert_eq!(story.pool_files().len(), 2, "within the disks' own files");

    story.apply(story.snapshot_manifest("outside", "web", json!({"method": "External"}))).await.unwrap();
    story.snapshot_is("outside", "False", "MixedMethods").await;
    let auto = story.take("auto", "web", json!({})).await.status.unwrap();
    assert_eq!(
        (auto.method, auto.parent.map(|parent| parent.name)),
        (Some(UsedMethod::Internal), Some("inside".into()))
    );

    // With the last internal one gone, the other method is as good.
    story.delete::<crds::Snapshot>("inside").await;
    story.delete::<crds::Snapshot>("auto").await;
    story.snapshot_is("outside", "True", "Ready").await;
    story.end().await;
}

#[tokio::test]
async fn a_snapshot_waits_for_its_machine_and_says_so() {
    let story = Story::new("waits").await;
    story.apply(story.snapshot_manifest("before", "web", json!({}))).await.unwrap();
    story.snapshot_is("before", "False", "MachineNotFound").await;
    let nowhere = json!({"placement": {"host": "no-such-host"}});
    story.apply(story.bare("web", nowhere)).await.unwrap();
    story.snapshot_is("before", "False", "MachineNotScheduled").await;
    story.delete::<VirtualMachine>("web").await;
    until("the snapshot to go with its machine", async || {
        story.snapshot("before").await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.metadata)))
    })
    .await;
    story.apply(story.snapshot_manifest("nothing", "other", json!({}))).await.unwrap();
    story.apply(story.with_disks("other", &[], json!({}))).await.unwrap();
    story.snapshot_is("nothing", "False", "NoDisks").await;
    story.end().await;
}
