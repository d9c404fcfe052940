//! Snapshots that somebody made with virsh: they are told of, and not touched.

use crds::Snapshot;
use crds::snapshot::RefKind;
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn snapshots_made_by_virsh_are_in_the_tree_and_never_touched() {
    let story = Story::alone("virsh").await;
    story.apply(story.with_disks("web", &[("root", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let virsh = |name: &str| {
        let words = ["snapshot-create-as", "virsh.web", name, "--disk-only", "--atomic"];
        story.virsh("node-a", &words).unwrap();
    };
    virsh("first");
    let count = async |wanted: i64| {
        until(&format!("{wanted} snapshots"), async || {
            let snapshots = story.vm("web").await.and_then(|vm| vm.status?.snapshots).unwrap_or_default();
            (snapshots.count == wanted).then_some(snapshots.clone()).ok_or(format!("{snapshots:?}"))
        })
        .await
    };
    count(1).await;
    // Its name is taken.
    story.apply(story.snapshot_manifest("first", "web", json!({}))).await.unwrap();
    story.snapshot_is("first", "False", "Conflict").await;
    let before = story.virsh("node-a", &["snapshot-dumpxml", "virsh.web", "first"]).unwrap();
    story.delete::<Snapshot>("first").await;
    assert_eq!(story.virsh("node-a", &["snapshot-dumpxml", "virsh.web", "first"]).unwrap(), before);

    let ours = story.take("ours", "web", json!({})).await.status.unwrap();
    let parent = ours.parent.unwrap();
    assert_eq!((parent.kind, parent.name.as_str()), (RefKind::Unmanaged, "first"));
    virsh("last");
    assert_eq!(count(3).await.current.as_deref(), Some("last"));
    until("the child", async || {
        let status = story.snapshot("ours").await.and_then(|snapshot| snapshot.status).unwrap_or_default();
        let children: Vec<_> = status.children.iter().map(|child| (child.kind, child.name.clone())).collect();
        let is_so = children == [(RefKind::Unmanaged, "last".to_owned())] && status.current == Some(false);
        is_so.then_some(()).ok_or(format!("{status:?}"))
    })
    .await;

    story.delete::<Snapshot>("ours").await;
    assert_eq!(story.in_libvirt("web"), ["first", "last"]);
    story.delete::<crds::VirtualMachine>("web").await;
    until("the end of all files", async || {
        let left = story.pool_files();
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
    story.end().await;
}

#[tokio::test]
async fn what_virsh_removed_is_lost_and_not_taken_anew() {
    let story = Story::new("vanished").await;
    story.apply(story.with_disks("web", &[("root", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    story.take("before", "web", json!({})).await;
    story.virsh("node-a", &["snapshot-delete", "vanished.web", "before"]).unwrap();
    story.snapshot_is("before", "False", "Lost").await;
    assert!(story.in_libvirt("web").is_empty());
    story.delete::<Snapshot>("before").await;

    // Only the record: the machine stays on the overlay, and its new snapshot goes on from there.
    story.take("record", "web", json!({})).await;
    story.virsh("node-a", &["snapshot-delete", "--metadata", "vanished.web", "record"]).unwrap();
    story.snapshot_is("record", "False", "Lost").await;
    story.delete::<Snapshot>("record").await;
    assert!(story.sources("web")[0].contains(".record-"), "{:?}", story.sources("web"));
    story.take("next", "web", json!({})).await;
    assert_eq!(story.pool_files().len(), 3);
    story.end().await;
}
