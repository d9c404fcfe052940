//! A snapshot, a stop and a deletion that are asked for in the same second end as if they had come one after another, in every order.

use crds::Snapshot;
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test]
async fn what_is_asked_for_in_the_same_second_ends_as_if_it_had_come_one_after_another() {
    let story = Story::new("orders").await;
    let off = json!({"spec": {"powerState": "Stopped"}});
    // A machine and its snapshot at once, then a stop and a snapshot, both ways round.
    for (round, stop_first) in [true, false].into_iter().enumerate() {
        let name = format!("vm{round}");
        let (first, second) = (format!("{name}-first"), format!("{name}-second"));
        let take = async |snapshot: &str| {
            story.apply(story.snapshot_manifest(snapshot, &name, json!({}))).await.unwrap();
        };
        story.apply(story.with_disks(&name, &[("a", "Raw"), ("b", "Qcow2")], json!({}))).await.unwrap();
        take(&first).await;
        story.snapshot_is(&first, "True", "Ready").await;
        story.vm_is(&name, "True", "Running").await;
        if stop_first {
            story.patch::<VirtualMachine>(&name, off.clone()).await;
            take(&second).await;
        } else {
            take(&second).await;
            story.patch::<VirtualMachine>(&name, off.clone()).await;
        }
        story.snapshot_is(&second, "True", "Ready").await;
        story.vm_is(&name, "True", "Stopped").await;
        assert_eq!(story.in_libvirt(&name), [first.clone(), second.clone()]);
        assert!(story.sources(&name).iter().all(|file| file.contains("-second-")), "{:?}", story.sources(&name));

        // Both merged at once, and a start: the start comes last, and finds the volumes' own files.
        for snapshot in [&first, &second] {
            story.api::<Snapshot>().delete(snapshot, &DeleteParams::default()).await.unwrap();
        }
        story.patch::<VirtualMachine>(&name, json!({"spec": {"powerState": "Running"}})).await;
        for snapshot in [&first, &second] {
            gone(&story, snapshot).await;
        }
        story.vm_is(&name, "True", "Running").await;
        assert!(story.sources(&name).iter().all(|file| file.ends_with(".raw") || file.ends_with(".qcow2")));
    }
    // Snapshots that are being taken and merged while their machine goes: all goes, in whatever order.
    for (round, machine_first) in [true, false].into_iter().enumerate() {
        let name = format!("vm{round}");
        story.take(&format!("{name}-old"), &name, json!({})).await;
        story.write(&name, "a", 7, "0", "48M").unwrap();
        story.api::<Snapshot>().delete(&format!("{name}-old"), &DeleteParams::default()).await.unwrap();
        let new = story.snapshot_manifest(&format!("{name}-new"), &name, json!({}));
        if !machine_first {
            story.apply(new.clone()).await.unwrap();
        }
        story.api::<VirtualMachine>().delete(&name, &DeleteParams::default()).await.unwrap();
        if machine_first {
            story.apply(new).await.unwrap();
            story.snapshot_is(&format!("{name}-new"), "False", "MachineTerminating").await;
            story.delete::<Snapshot>(&format!("{name}-new")).await;
        }
        until("the end of the machine", async || {
            story.vm(&name).await.map_or(Ok(()), |vm| Err(format!("{:?}", vm.status)))
        })
        .await;
        for snapshot in ["old", "new"] {
            gone(&story, &format!("{name}-{snapshot}")).await;
        }
        assert_eq!(story.domain("node-a", &story.domain_name(&name)), "absent");
    }
    until("the end of all files", async || {
        let left = story.pool_files();
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
    story.end().await;
}

async fn gone(story: &Story, name: &str) {
    until(&format!("the end of {name}"), async || {
        story.snapshot(name).await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
    })
    .await;
}
