//! A snapshot that is deleted is merged while the guest runs on; or it says what blocks it and what to delete first.

use crds::Snapshot;
use crds::conditions::{Type, find};
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test]
async fn deletion_merges_while_the_guest_runs_and_loses_nothing() {
    let story = Story::new("merged").await;
    story.apply(story.with_disks("web", &[("root", "Raw"), ("data", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let (files, id) = (story.sources("web"), story.virsh("node-a", &["domid", "merged.web"]).unwrap());
    // One value before, between and after, on both disks.
    for (value, snapshot) in [(65, Some("one")), (66, Some("two")), (67, None)] {
        for disk in ["root", "data"] {
            story.write("web", disk, value, &format!("{}k", u32::from(value) * 4), "4k").unwrap();
        }
        if let Some(name) = snapshot {
            story.take(name, "web", json!({})).await;
        }
    }
    // The older one first: it is not where the machine goes on from.
    story.delete::<Snapshot>("one").await;
    let two = story.snapshot_is("two", "True", "Ready").await;
    until("a tree without it", async || {
        let status = story.snapshot("two").await.and_then(|two| two.status).unwrap_or_default();
        let files: Vec<_> = status.disks.iter().map(|disk| disk.path.clone()).collect();
        (status.parent.is_none() && files == story_files(&files)).then_some(()).ok_or(format!("{status:?}"))
    })
    .await;
    assert_eq!(two.status.unwrap().current, Some(true));
    story.delete::<Snapshot>("two").await;
    assert_eq!((story.sources("web"), story.pool_files().len()), (files.clone(), 2));
    for path in &files {
        for value in [65u8, 66, 67] {
            assert_eq!(story.byte(path, u64::from(value) * 4096).unwrap(), value, "{path}");
        }
    }
    assert_eq!(story.virsh("node-a", &["domid", "merged.web"]).unwrap(), id, "the guest ran on");
    until("no snapshots", async || {
        let status = story.vm("web").await.and_then(|vm| vm.status).unwrap_or_default();
        status.snapshots.map_or(Ok(()), |snapshots| Err(format!("{snapshots:?}")))
    })
    .await;

    // Kept in libvirt, it is nobody's.
    story.take("kept", "web", json!({"deletionPolicy": "Retain"})).await;
    story.delete::<Snapshot>("kept").await;
    assert_eq!(story.in_libvirt("web"), ["kept"]);
    story.apply(story.snapshot_manifest("kept", "web", json!({}))).await.unwrap();
    story.snapshot_is("kept", "False", "Conflict").await;
    story.end().await;
}

/// The files that they are when nothing but the volumes' own is left below.
fn story_files(files: &[String]) -> Vec<String> {
    files.iter().filter(|file| file.ends_with(".raw")).cloned().collect()
}

#[tokio::test]
async fn what_blocks_a_deletion_is_told_with_what_to_delete_first() {
    let story = Story::new("blocked").await;
    story.apply(story.with_disks("web", &[("root", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let blocked = async |name: &str, reason: &str, words: &str| {
        until(&format!("{name} blocked by {reason}"), async || {
            let status = story.snapshot(name).await.and_then(|snapshot| snapshot.status).unwrap_or_default();
            let told = find(&status.conditions, Type::DeletionBlocked).cloned();
            let is_so = told.as_ref().is_some_and(|c| c.reason == reason && c.message.contains(words));
            is_so.then_some(()).ok_or(format!("{told:?}"))
        })
        .await;
    };
    let delete = async |name: &str| {
        story.api::<Snapshot>().delete(name, &DeleteParams::default()).await.unwrap();
    };
    let gone = async |name: &str| {
        until(&format!("the end of {name}"), async || {
            story.snapshot(name).await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
        })
        .await;
    };
    // A paused guest merges nothing; it is told until somebody lets it run.
    story.take("paused", "web", json!({})).await;
    story.virsh("node-a", &["suspend", "blocked.web"]).unwrap();
    delete("paused").await;
    blocked("paused", "GuestPaused", "virsh resume").await;
    story.virsh("node-a", &["resume", "blocked.web"]).unwrap();
    gone("paused").await;

    // A tree: base, then old; back to base, then new.
    story.take("base", "web", json!({})).await;
    story.take("old", "web", json!({})).await;
    story.virsh("node-a", &["snapshot-revert", "blocked.web", "base", "--running"]).unwrap();
    story.vm_is("web", "True", "Running").await;
    story.take("new", "web", json!({})).await;
    delete("base").await;
    blocked("base", "SeveralChildren", "old").await;
    assert_eq!(story.in_libvirt("web").len(), 3, "nothing was tried");
    delete("old").await;
    gone("old").await;
    gone("base").await;
    assert_eq!(story.in_libvirt("web"), ["new"]);

    // The machine's own end asks for no merge.
    story.delete::<VirtualMachine>("web").await;
    gone("new").await;
    story.end().await;
}
