//! A volume grows: by itself, under a guest that runs, and not at all below somebody else's.

use crds::storage_volume::VolumePhase;
use crds::{StorageVolume, quantity};
use e2e::story::{Story, until};
use serde_json::json;

async fn grown(story: &Story, name: &str, mebibytes: u64) {
    until(&format!("{name} of {mebibytes} MiB"), async || {
        let status = story.volume(name).await.and_then(|volume| volume.status).ok_or("gone")?;
        let capacity = status.capacity.as_ref().and_then(quantity::units);
        (capacity == Some(mebibytes << 20) && status.phase == Some(VolumePhase::Ready))
            .then_some(())
            .ok_or(format!("{capacity:?} {:?}", status.conditions))
    })
    .await;
}

async fn grow(story: &Story, name: &str, capacity: &str) {
    story.patch::<StorageVolume>(name, json!({"spec": {"capacity": capacity}})).await;
}

#[tokio::test]
async fn a_volume_that_nobody_has_open_grows_by_itself_and_keeps_its_data() {
    let story = Story::new("growth").await;
    for (name, format, allocation) in
        [("raw", "Raw", "Thin"), ("full", "Raw", "Full"), ("qcow2", "Qcow2", "Thin"), ("filled", "Qcow2", "Full")]
    {
        let spec = json!({"capacity": "1Mi", "format": format, "allocation": allocation, "host": "node-a"});
        story.apply(story.volume_manifest(name, spec)).await.unwrap();
    }
    story.volume_is("raw", "True", "Ready").await;
    let path = story.volume("raw").await.unwrap().status.unwrap().path.unwrap();
    let file = story.outside("node-a", &path);
    std::fs::write(&file, vec![7; 1 << 20]).unwrap();
    for name in ["raw", "full", "qcow2", "filled"] {
        story.volume_is(name, "True", "Ready").await;
        grow(&story, name, "3Mi").await;
        grown(&story, name, 3).await;
    }
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!((bytes.len(), bytes[..1 << 20].iter().all(|byte| *byte == 7)), (3 << 20, true));
    story.end().await;
}

#[tokio::test]
async fn a_running_guest_sees_its_disk_grow() {
    let story = Story::new("growlive").await;
    for (name, format) in [("a", "Raw"), ("b", "Qcow2")] {
        story.apply(story.volume_manifest(name, json!({"capacity": "1Mi", "format": format}))).await.unwrap();
    }
    let root = story.guest("web", json!({}))["spec"]["disks"][0].clone();
    let disks = json!([root, {"name": "a", "volume": "a"}, {"name": "b", "volume": "b"}]);
    story.apply(story.guest("web", json!({"disks": disks}))).await.unwrap();
    let host = story.vm_is("web", "True", "Running").await.status.unwrap().host.unwrap();
    let sectors = "cat /sys/class/block/vdb/size /sys/class/block/vdc/size";
    assert_eq!(story.in_guest(&host, "web", sectors).await, "2048\n2048");
    for name in ["a", "b"] {
        grow(&story, name, "4Mi").await;
        grown(&story, name, 4).await;
    }
    assert_eq!(story.in_guest(&host, "web", sectors).await, "8192\n8192");
    story.end().await;
}

#[tokio::test]
async fn a_volume_that_a_foreign_domain_runs_with_waits_for_its_end() {
    let story = Story::new("growforeign").await;
    let spec = json!({"capacity": "1Mi", "format": "Raw", "host": "node-a"});
    story.apply(story.volume_manifest("disk", spec)).await.unwrap();
    story.volume_is("disk", "True", "Ready").await;
    let path = story.volume("disk").await.unwrap().status.unwrap().path.unwrap();
    let xml = format!(
        "<domain type='qemu'><name>theirs-grow</name><memory unit='MiB'>32</memory><os><type>hvm</type></os><devices>\
         <disk type='file'><driver name='qemu' type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/></disk>\
         </devices></domain>"
    );
    let file = "/var/lib/virtfleet/theirs-grow.xml";
    std::fs::write(story.outside("node-a", file), xml).unwrap();
    story.virsh("node-a", &["create", &story.outside("node-a", file).to_string_lossy()]).unwrap();
    grow(&story, "disk", "2Mi").await;
    let waits = story.volume_is("disk", "False", "InUse").await.status.unwrap();
    assert_eq!(waits.phase, Some(VolumePhase::Resizing));
    assert_eq!(std::fs::metadata(story.outside("node-a", &path)).unwrap().len(), 1 << 20);
    story.virsh("node-a", &["destroy", "theirs-grow"]).unwrap();
    grown(&story, "disk", 2).await;
    story.end().await;
}
