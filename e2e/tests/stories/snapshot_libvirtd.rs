//! libvirtd is killed while it takes and while it merges snapshots: the guest runs on and nothing that it wrote is lost.

use crds::Snapshot;
use crds::conditions::{Type, find};
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_libvirtd_that_dies_while_it_takes_loses_nothing() {
    let story = Story::alone("taker").await;
    story.apply(story.with_disks("web", &[("a", "Raw"), ("b", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let files = story.sources("web");
    let mut restarts = 0;
    for (round, pause) in [60u64, 80, 100, 120, 140, 160, 180, 220].into_iter().enumerate() {
        let (name, value) = (format!("s{round}"), u8::try_from(round + 1).unwrap());
        let id = run(&story).await;
        story.apply(story.snapshot_manifest(&name, "web", json!({}))).await.unwrap();
        kill_after(&story, pause).await;
        assert_eq!(run(&story).await, id, "the guest ran on");
        for disk in ["a", "b"] {
            until("libvirt", async || story.write("web", disk, value, &format!("{}k", round * 4), "4k")).await;
        }
        let behind = until("the snapshot", async || {
            let status = story.snapshot(&name).await.and_then(|snapshot| snapshot.status).unwrap_or_default();
            let ready = find(&status.conditions, Type::Ready).map(|ready| (ready.status.clone(), ready.reason.clone()));
            match ready.as_ref().map(|(status, reason)| (status.as_str(), reason.as_str())) {
                Some(("True", _)) => Ok(false),
                Some((_, "LibvirtBehind")) => Ok(true),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        if behind {
            restarts += 1;
            let restart = json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": name}}});
            story.patch::<VirtualMachine>("web", restart).await;
            story.snapshot_is(&name, "True", "Ready").await;
        }
        assert_eq!(story.in_libvirt("web"), std::slice::from_ref(&name), "round {round}");
        story.delete::<Snapshot>(&name).await;
        assert_eq!((story.sources("web"), story.pool_files().len()), (files.clone(), 2), "round {round}");
        for (path, at) in files.iter().flat_map(|path| (0..=round).map(move |at| (path, at))) {
            let value = u8::try_from(at + 1).unwrap();
            assert_eq!(story.byte(path, at as u64 * 4096).unwrap(), value, "round {round}, {path}");
        }
    }
    println!("libvirt was behind {restarts} times");
    story.end().await;
}

/// Where the guest writes after the kill, in KiB: behind what it wrote before.
const LATER: usize = 56 << 10;

#[tokio::test]
async fn a_libvirtd_that_dies_while_it_merges_loses_nothing() {
    let story = Story::alone("daemon").await;
    story.apply(story.with_disks("web", &[("a", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let (files, mut id) = (story.sources("web"), run(&story).await);
    let mut restarts = 0;
    for (round, pause) in [0u64, 20, 40, 60, 80, 120, 200].into_iter().enumerate() {
        let (name, value) = (format!("s{round}"), u8::try_from(round + 1).unwrap());
        story.take(&name, "web", json!({})).await;
        story.write("web", "a", value, &format!("{}k", round * 4), "48M").unwrap();
        story.api::<Snapshot>().delete(&name, &DeleteParams::default()).await.unwrap();
        kill_after(&story, pause).await;
        // Wherever the guest is by now: this must not be lost.
        until("libvirt", async || story.write("web", "a", value, &format!("{}k", LATER + round * 4), "4k")).await;
        let ended = until("the end of the snapshot", async || match story.snapshot(&name).await {
            None => Ok(true),
            // libvirt remembers a job that QEMU has ended, until the guest starts again (docs/troubleshooting.md, MergeFailed).
            Some(snapshot) if is_stuck(&story, &snapshot) => Ok(false),
            Some(snapshot) => Err(format!("{:?}", snapshot.status)),
        })
        .await;
        if !ended {
            restarts += 1;
            let restart = json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": name}}});
            story.patch::<VirtualMachine>("web", restart).await;
            until("the end of the snapshot", async || {
                story.snapshot(&name).await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
            })
            .await;
            id = run(&story).await;
        }
        assert_eq!((story.in_libvirt("web").len(), story.pool_files().len()), (0, 1));
        assert_eq!(run(&story).await, id, "the guest ran on");
        // A libvirtd that dies between QEMU's last word and its own note believes in the overlay until the guest starts again.
        for state in ["Stopped", "Running"] {
            story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": state}})).await;
            story.vm_is("web", "True", state).await;
        }
        id = run(&story).await;
        assert_eq!(story.sources("web"), files);
        for (at, value) in (0..=round).zip(1u8..) {
            for at in [at * 4, LATER + at * 4] {
                assert_eq!(story.byte(&files[0], at as u64 * 1024).unwrap(), value, "round {round}, at {at}k");
            }
        }
    }
    println!("a merge was stuck {restarts} times");
    story.end().await;
}

/// Whether a merge cannot go on since libvirt believes in a job that is over.
fn is_stuck(story: &Story, snapshot: &Snapshot) -> bool {
    let conditions = snapshot.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    let blocked = find(conditions, Type::DeletionBlocked).filter(|blocked| blocked.reason == "MergeFailed");
    blocked.is_some_and(|blocked| blocked.message.contains("active block job"))
        && story.virsh("node-a", &["blockjob", "daemon.web", "vda"]).is_ok_and(|said| !said.contains('%'))
}

/// The number of the guest's run. libvirtd 11.3 sometimes dies once more as it takes up what it was killed in.
async fn run(story: &Story) -> String {
    until("libvirt", async || story.virsh("node-a", &["domid", &story.domain_name("web")])).await
}

async fn kill_after(story: &Story, milliseconds: u64) {
    let pid = story.pid("libvirtd-node-a");
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    story.kill("libvirtd-node-a");
    story.back("libvirtd-node-a", pid).await;
}
