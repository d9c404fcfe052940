//! The agent is killed with -9 while it takes and while it merges snapshots: each is taken once, and nothing is lost or left over.

use crds::Snapshot;
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn an_agent_that_is_killed_while_it_takes_or_merges_loses_nothing() {
    let story = Story::alone("snapkill").await;
    story.apply(story.with_disks("web", &[("a", "Raw"), ("b", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let files = story.sources("web");
    for (round, pause) in [0u64, 40, 70, 100, 130, 170, 220].into_iter().enumerate() {
        let name = format!("s{round}");
        story.apply(story.snapshot_manifest(&name, "web", json!({}))).await.unwrap();
        kill_after(&story, pause).await;
        story.snapshot_is(&name, "True", "Ready").await;
        assert_eq!(story.in_libvirt("web"), std::slice::from_ref(&name), "taken once");
        assert_eq!(story.pool_files().len(), 4);
        let value = u8::try_from(round + 1).unwrap();
        for disk in ["a", "b"] {
            story.write("web", disk, value, &format!("{}k", round * 4), "48M").unwrap();
        }
        // Half of them are merged while the machine is off, by a QEMU of libvirt's own.
        let off = round % 2 == 1;
        if off {
            power(&story, "Stopped").await;
        }
        story.api::<Snapshot>().delete(&name, &DeleteParams::default()).await.unwrap();
        kill_after(&story, pause * 2).await;
        until("the end of the snapshot", async || {
            story.snapshot(&name).await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
        })
        .await;
        assert_eq!((story.in_libvirt("web").len(), story.pool_files().len()), (0, 2));
        for path in &files {
            for (at, value) in (0..=round).zip(1u8..) {
                assert_eq!(story.byte(path, at as u64 * 4096).unwrap(), value, "round {round}, {path}");
            }
        }
        if off {
            power(&story, "Running").await;
        }
        assert_eq!(story.sources("web"), files);
    }
    story.end().await;
}

async fn power(story: &Story, state: &str) {
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": state}})).await;
    story.vm_is("web", "True", state).await;
}

async fn kill_after(story: &Story, milliseconds: u64) {
    let pid = story.pid("agent-node-a");
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    story.kill("agent-node-a");
    story.back("agent-node-a", pid).await;
}
