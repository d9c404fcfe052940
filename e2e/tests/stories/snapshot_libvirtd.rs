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

const DISKS: [&str; 2] = ["a", "b"];

/// `KILLS=60` kills that often; most merges of this story are at work some 40 to 90 ms after they were asked for.
#[tokio::test]
async fn a_libvirtd_that_dies_while_it_merges_loses_nothing() {
    let story = Story::alone("daemon").await;
    story.apply(story.with_disks("web", &[("a", "Raw"), ("b", "Qcow2")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let (files, mut restarts) = (story.sources("web"), 0);
    let kills: u64 = std::env::var("KILLS").map_or(8, |kills| kills.parse().unwrap());
    for round in 0..kills {
        // The overlay that the guest is on, or one below it.
        let (pause, snapshots) =
            (5 + round * 37 % 110, if round % 2 == 0 { &["last"][..] } else { &["below", "last"] });
        let value = u8::try_from(round % 250).unwrap() + 1;
        let mut written = Vec::new();
        for (at, name) in ["1M", "9M"].into_iter().zip(snapshots) {
            story.take(name, "web", json!({})).await;
            writes(&story, value, at, "8M", &mut written).await;
        }
        let mut id = run(&story).await;
        story.api::<Snapshot>().delete(snapshots[0], &DeleteParams::default()).await.unwrap();
        kill_after(&story, pause).await;
        // Wherever the guest is by now: this must not be lost.
        writes(&story, value, "40M", "1M", &mut written).await;
        for name in snapshots {
            if !goes(&story, name).await {
                restarts += 1;
                id = restart(&story, &id).await;
                until("the end of the snapshot", async || {
                    story.snapshot(name).await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
                })
                .await;
            }
        }
        assert_eq!(run(&story).await, id, "the guest ran on");
        writes(&story, value, "42M", "1M", &mut written).await;
        // Whatever libvirt believes, this is where it starts the guest.
        restart(&story, &id).await;
        assert_eq!((story.sources("web"), story.pool_files().len()), (files.clone(), 2), "round {round}");
        for (disk, (at, length)) in DISKS.iter().flat_map(|disk| written.iter().map(move |place| (disk, place))) {
            let reads = until("libvirt", async || story.reads("web", disk, value, at, length)).await;
            assert!(reads, "round {round}: {disk} at {at}");
        }
    }
    println!("libvirt was behind {restarts} times");
    story.end().await;
}

async fn writes(
    story: &Story,
    value: u8,
    at: &'static str,
    length: &'static str,
    written: &mut Vec<(&'static str, &'static str)>,
) {
    for disk in DISKS {
        until("libvirt", async || story.write("web", disk, value, at, length)).await;
    }
    written.push((at, length));
}

/// Deletes a snapshot; false where it waits for a restart of the guest.
async fn goes(story: &Story, name: &str) -> bool {
    let deleted = story.api::<Snapshot>().delete(name, &DeleteParams::default()).await;
    assert!(deleted.is_ok() || story.snapshot(name).await.is_none(), "{deleted:?}");
    until("the end of the snapshot", async || match story.snapshot(name).await {
        None => Ok(true),
        Some(snapshot) if is_behind(&snapshot) || is_stuck(story, &snapshot) => Ok(false),
        Some(snapshot) => Err(format!("{:?}", snapshot.status)),
    })
    .await
}

async fn restart(story: &Story, run_before: &str) -> String {
    let restart = json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": run_before}}});
    story.patch::<VirtualMachine>("web", restart).await;
    let id = until("another run", async || match &*run(story).await {
        "-" => Err("it is off"),
        id if id == run_before => Err("the same"),
        id => Ok(id.to_owned()),
    })
    .await;
    story.vm_is("web", "True", "Running").await;
    id
}

fn is_behind(snapshot: &Snapshot) -> bool {
    let conditions = snapshot.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    find(conditions, Type::DeletionBlocked).is_some_and(|blocked| blocked.reason == "LibvirtBehind")
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
