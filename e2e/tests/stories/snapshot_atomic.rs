//! All disks or none: what fails leaves nothing over, and is tried again.

use crds::Snapshot;
use e2e::story::{Story, until};
use serde_json::json;
use std::fs;

#[tokio::test]
async fn a_third_disk_that_fails_leaves_nothing_of_the_other_two() {
    let story = Story::new("atomic").await;
    let disks = [("a", "Raw"), ("b", "Qcow2"), ("c", "Raw")];
    story.apply(story.with_disks("web", &disks, json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let before = story.sources("web");

    // The third cannot even be looked at.
    let third = story.outside("node-a", &before[2]);
    let aside = third.with_extension("aside");
    fs::rename(&third, &aside).unwrap();
    story.apply(story.snapshot_manifest("before", "web", json!({}))).await.unwrap();
    story.snapshot_is("before", "False", "DiskUnreadable").await;
    assert_eq!((story.sources("web"), story.pool_files().len()), (before.clone(), 3));
    fs::rename(&aside, &third).unwrap();
    story.snapshot_is("before", "True", "Ready").await;
    assert_eq!(story.pool_files().len(), 6);
    story.delete::<Snapshot>("before").await;

    assert_eq!((story.sources("web"), story.pool_files().len()), (before, 3));
    story.end().await;
}

#[tokio::test]
async fn a_file_of_the_overlays_name_is_never_overwritten_not_even_an_empty_one() {
    let story = Story::alone("occupied").await;
    story.apply(story.with_disks("web", &[("a", "Raw"), ("b", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let before = story.sources("web");
    let pid = story.pid("agent-node-a");
    story.hold("agent-node-a");
    let object = story.apply(story.snapshot_manifest("before", "web", json!({}))).await.unwrap();
    let uid = object.metadata.uid.unwrap();
    let overlay = before[1].replace(".raw", &format!(".before-{}", &uid[..8]));
    let file = story.outside("node-a", &overlay);
    fs::write(&file, "").unwrap();
    story.release("agent-node-a");
    story.back("agent-node-a", pid).await;
    story.snapshot_is("before", "False", "FileExists").await;
    assert_eq!((story.sources("web"), story.pool_files().len()), (before, 3));
    // Its object goes without it.
    story.delete::<Snapshot>("before").await;
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
    fs::remove_file(file).unwrap();
    story.end().await;
}

#[tokio::test]
async fn what_libvirt_refuses_is_told_and_leaves_nothing() {
    let story = Story::new("refused-take").await;
    story.apply(story.with_disks("web", &[("a", "Raw"), ("b", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let before = story.sources("web");
    // A job of somebody's own on one of the disks: libvirt refuses to take a snapshot meanwhile.
    let copy = story.outside("node-a", "/var/lib/virtfleet/refused-take/copy");
    let inside = "/var/lib/virtfleet/refused-take/copy";
    let words = ["blockcopy", "refused-take.web", "vdb", inside, "--transient-job", "--format", "raw"];
    story.virsh("node-a", &words).unwrap();
    story.apply(story.snapshot_manifest("before", "web", json!({}))).await.unwrap();
    story.snapshot_is("before", "False", "SnapshotFailed").await;
    until("nothing left over", async || {
        let files: Vec<_> = story.pool_files().into_iter().map(|(name, ..)| name).collect();
        (files.len() == 3 && story.sources("web") == before).then_some(()).ok_or(format!("{files:?}"))
    })
    .await;
    story.virsh("node-a", &["blockjob", "refused-take.web", "vdb", "--abort"]).unwrap();
    fs::remove_file(copy).unwrap();
    story.snapshot_is("before", "True", "Ready").await;
    assert_eq!(story.pool_files().len(), 4);
    story.end().await;
}
