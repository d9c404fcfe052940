//! QEMU has merged a snapshot and libvirt does not know, as when it is killed right before it notes that: what the guest wrote since is in
//! the file below, and libvirt would start it on the overlay again.

use crds::Snapshot;
use crds::conditions::{Type, find};
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::{Value, json};

#[tokio::test]
async fn a_merge_that_libvirt_did_not_note_loses_nothing() {
    let story = Story::alone("unnoted").await;
    story.apply(story.with_disks("web", &[("a", "Raw"), ("b", "Qcow2")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let (volumes, id) = (story.sources("web"), story.virsh("node-a", &["domid", "unnoted.web"]).unwrap());
    story.take("older", "web", json!({})).await;
    let files = story.sources("web");
    story.take("before", "web", json!({})).await;
    for disk in ["a", "b"] {
        story.write("web", disk, 1, "0", "1M").unwrap();
    }
    // In the order of one that dies after the first of two disks.
    merge_in_qemu(&story, "a", None, &files[0]).await;
    story.write("web", "a", 2, "2M", "1M").unwrap();

    story.api::<Snapshot>().delete("before", &Default::default()).await.unwrap();
    is_blocked(&story, "before").await;
    let inactive = story.virsh("node-a", &["domblklist", "--inactive", "unnoted.web"]).unwrap();
    assert!(inactive.contains(&files[0]), "its next start is on the file that it writes to: {inactive}");
    story.apply(story.snapshot_manifest("after", "web", json!({}))).await.unwrap();
    story.snapshot_is("after", "False", "LibvirtBehind").await;
    story.delete::<Snapshot>("after").await; // Nothing of it was made.
    story.apply(story.snapshot_manifest("after", "web", json!({}))).await.unwrap();
    let vm = story.vm("web").await.and_then(|vm| vm.status).unwrap();
    assert!(find(&vm.conditions, Type::RestartRequired).is_some(), "{vm:?}");
    // A libvirtd that begins anew keeps the guest though the file that it believes in is gone.
    let pid = story.pid("libvirtd-node-a");
    story.kill("libvirtd-node-a");
    story.back("libvirtd-node-a", pid).await;
    until("libvirt", async || story.virsh("node-a", &["domid", "unnoted.web"])).await;
    assert_eq!(story.virsh("node-a", &["domid", "unnoted.web"]).unwrap(), id, "the guest ran on");
    story.write("web", "a", 3, "4M", "1M").unwrap();

    restart(&story, "before").await;
    story.snapshot_is("after", "True", "Ready").await;
    story.delete::<Snapshot>("after").await;
    assert_eq!((story.in_libvirt("web"), story.sources("web")), (vec!["older".to_owned()], files));
    // As libvirt leaves it where it was killed while something was being merged into it.
    let noted = story.virsh("node-a", &["snapshot-dumpxml", "--security-info", "unnoted.web", "older"]).unwrap();
    let noted = noted.replacen("</disk>", "<snapshotDeleteInProgress/></disk>", 1);
    let file = story.outside("node-a", "/var/lib/virtfleet/noted.xml");
    std::fs::write(&file, noted).unwrap();
    let redefine = ["snapshot-create", "unnoted.web", &file.display().to_string(), "--redefine", "--current"];
    story.virsh("node-a", &redefine).unwrap();
    let told = story.virsh("node-a", &["snapshot-dumpxml", "unnoted.web", "older"]).unwrap();
    assert!(told.contains("snapshotDeleteInProgress"), "{told}");
    story.delete::<Snapshot>("older").await;
    assert_eq!((story.pool_files().len(), story.sources("web")), (2, volumes.clone()));
    for (at, value) in [(0, 1), (2 << 20, 2), (4 << 20, 3)] {
        assert_eq!(story.byte(&volumes[0], at).unwrap(), value, "at {at}");
    }
    story.end().await;
}

#[tokio::test]
async fn a_merge_below_the_last_overlay_that_libvirt_did_not_note_loses_nothing() {
    for guest_ends in [false, true] {
        merged_below(guest_ends).await;
    }
}

async fn merged_below(guest_ends: bool) {
    let story = Story::alone("unnoted").await;
    story.apply(story.with_disks("web", &[("a", "Raw"), ("b", "Qcow2")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let (volumes, id) = (story.sources("web"), story.virsh("node-a", &["domid", "unnoted.web"]).unwrap());
    story.take("one", "web", json!({})).await;
    let overlays = story.sources("web");
    for disk in ["a", "b"] {
        story.write("web", disk, 1, "0", "1M").unwrap();
    }
    story.take("two", "web", json!({})).await;
    story.write("web", "a", 2, "2M", "1M").unwrap();
    for (disk, (overlay, below)) in ["a", "b"].into_iter().zip(overlays.iter().zip(&volumes)) {
        merge_in_qemu(&story, disk, Some(overlay), below).await;
    }
    if guest_ends {
        // libvirt has read the chain afresh by the time that the agent looks.
        story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Stopped"}})).await;
        story.vm_is("web", "True", "Stopped").await;
        story.delete::<Snapshot>("one").await;
        story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Running"}})).await;
        story.vm_is("web", "True", "Running").await;
    } else {
        story.delete::<Snapshot>("one").await;
        assert_eq!(story.virsh("node-a", &["domid", "unnoted.web"]).unwrap(), id, "the guest ran on");
    }
    assert_eq!((story.in_libvirt("web"), story.pool_files().len()), (vec!["two".to_owned()], 4));
    let two = story.snapshot_is("two", "True", "Ready").await.status.unwrap();
    assert!(two.disks.iter().map(|disk| &disk.path).eq(&volumes), "{:?}", two.disks);

    if guest_ends {
        story.delete::<Snapshot>("two").await;
    } else {
        // libvirt believes in the chain as it was until the guest starts again.
        story.api::<Snapshot>().delete("two", &Default::default()).await.unwrap();
        is_blocked(&story, "two").await;
        restart(&story, "two").await;
    }
    assert_eq!((story.pool_files().len(), story.sources("web")), (2, volumes.clone()));
    for (at, value) in [(0, 1), (2 << 20, 2)] {
        assert_eq!(story.byte(&volumes[0], at).unwrap(), value, "at {at}");
    }
    story.end().await;
}

async fn is_blocked(story: &Story, snapshot: &str) {
    until("the deletion waits for a restart", async || {
        let status = story.snapshot(snapshot).await.and_then(|snapshot| snapshot.status).unwrap_or_default();
        let blocked = find(&status.conditions, Type::DeletionBlocked).map(|blocked| blocked.reason.clone());
        if blocked.as_deref() == Some("LibvirtBehind") { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

/// Restarts the machine, and waits for the end of a snapshot that waited for it.
async fn restart(story: &Story, snapshot: &str) {
    let restart = json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": snapshot}}});
    story.patch::<VirtualMachine>("web", restart).await;
    until("the end of the snapshot", async || {
        story.snapshot(snapshot).await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
    })
    .await;
}

/// Does what libvirt asks of QEMU to merge the guest's overlay, or one below it, but for its last word: the overlay stays open.
async fn merge_in_qemu(story: &Story, disk: &str, overlay: Option<&str>, below: &str) {
    let qemu = |command: Value| {
        let said = story.virsh("node-a", &["qemu-monitor-command", "unnoted.web", &command.to_string()]).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert!(said["error"].is_null(), "{command}: {said}");
        said["return"].as_array().cloned().unwrap_or_default()
    };
    let alias = format!("/ua-disk-{disk}/");
    let devices = qemu(json!({"execute": "query-block"}));
    let device = devices.iter().find(|device| device["qdev"].as_str().is_some_and(|path| path.contains(&alias)));
    let root = device.unwrap()["inserted"]["node-name"].clone();
    let nodes = qemu(json!({"execute": "query-named-block-nodes"}));
    let node = |file: &str| {
        let of = nodes.iter().filter(|node| node["file"] == file);
        of.max_by_key(|node| node["drv"] == "qcow2").unwrap()["node-name"].clone()
    };
    let top = overlay.map_or(root.clone(), node);
    let commit = json!({"job-id": "behind", "device": root, "top-node": top, "base-node": node(below)});
    qemu(json!({"execute": "block-commit", "arguments": commit}));
    if overlay.is_none() {
        until("the job is ready", async || match &*qemu(json!({"execute": "query-block-jobs"})) {
            [job] if job["ready"] == true => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        qemu(json!({"execute": "block-job-complete", "arguments": {"device": "behind"}}));
    }
    until("the job is over", async || match &*qemu(json!({"execute": "query-block-jobs"})) {
        [] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
