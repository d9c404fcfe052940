//! A machine with snapshots goes whole; a volume that stays keeps what was written since its snapshots.

use crds::storage_volume::StorageVolume;
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn a_machine_with_snapshots_is_deleted_whole() {
    let story = Story::new("whole").await;
    story.apply(story.with_disks("web", &[("root", "Raw"), ("data", "Qcow2")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    for name in ["one", "two", "three"] {
        story.take(name, "web", json!({})).await;
    }
    story.virsh("node-a", &["snapshot-create-as", "whole.web", "virsh", "--disk-only"]).unwrap();
    assert_eq!(story.pool_files().len(), 10);
    story.delete::<VirtualMachine>("web").await;
    assert_eq!(story.domain("node-a", "whole.web"), "absent");
    until("the end of snapshots, volumes and files", async || {
        let mut left = Vec::new();
        for name in ["one", "two", "three"] {
            left.extend(story.snapshot(name).await.map(|snapshot| format!("{:?}", snapshot.status)));
        }
        for name in ["web-root", "web-data"] {
            left.extend(story.volume(name).await.map(|volume| format!("{:?}", volume.status)));
        }
        left.extend(story.pool_files().into_iter().map(|(name, ..)| name));
        left.is_empty().then_some(()).ok_or(left.join("; "))
    })
    .await;
    story.end().await;
}

#[tokio::test]
async fn a_volume_that_stays_goes_on_where_its_last_machine_left_it() {
    let story = Story::new("goeson").await;
    story
        .apply(story.volume_manifest("disk", json!({"capacity": "16Mi", "format": "Raw", "host": "node-a"})))
        .await
        .unwrap();
    let disks = json!({"disks": [{"name": "root", "volume": "disk"}]});
    story.apply(story.bare("web", disks.clone())).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    story.take("before", "web", json!({})).await;
    story.write("web", "root", 66, "0", "4k").unwrap();
    let left = story.sources("web");
    story.delete::<VirtualMachine>("web").await;
    until("the end of the snapshot", async || story.snapshot("before").await.map_or(Ok(()), |_| Err("it is there")))
        .await;
    assert_eq!(story.pool_files().len(), 2, "base and overlay stay with the volume");

    story.apply(story.bare("next", disks)).await.unwrap();
    story.vm_is("next", "True", "Running").await;
    assert_eq!(story.sources("next"), left);
    // Its object goes, its files stay.
    story.delete::<VirtualMachine>("next").await;
    story.delete::<StorageVolume>("disk").await;
    assert_eq!(story.pool_files().len(), 2);
    let dir = story.outside("node-a", "/var/lib/virtfleet/goeson");
    for (file, ..) in story.pool_files() {
        std::fs::remove_file(dir.join(file)).unwrap();
    }
    story.end().await;
}
