//! libvirtd is killed while it merges snapshots: the guest runs on and nothing that it wrote is lost.

use crds::Snapshot;
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_libvirtd_that_dies_while_it_merges_loses_nothing() {
    let story = Story::alone("daemon").await;
    story.apply(story.with_disks("web", &[("a", "Raw")], json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let (files, mut id) = (story.sources("web"), story.virsh("node-a", &["domid", "daemon.web"]).unwrap());
    for (round, pause) in [0u64, 20, 40, 60, 80, 120, 200].into_iter().enumerate() {
        let (name, value) = (format!("s{round}"), u8::try_from(round + 1).unwrap());
        story.take(&name, "web", json!({})).await;
        story.write("web", "a", value, &format!("{}k", round * 4), "48M").unwrap();
        story.api::<Snapshot>().delete(&name, &DeleteParams::default()).await.unwrap();
        kill_after(&story, pause).await;
        until("the end of the snapshot", async || {
            story.snapshot(&name).await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
        })
        .await;
        assert_eq!((story.in_libvirt("web").len(), story.pool_files().len()), (0, 1));
        assert_eq!(story.virsh("node-a", &["domid", "daemon.web"]).unwrap(), id, "the guest ran on");
        // A libvirtd that dies between QEMU's last word and its own note believes in the overlay until the guest starts again.
        for state in ["Stopped", "Running"] {
            story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": state}})).await;
            story.vm_is("web", "True", state).await;
        }
        id = story.virsh("node-a", &["domid", "daemon.web"]).unwrap();
        assert_eq!(story.sources("web"), files);
        for (at, value) in (0..=round).zip(1u8..) {
            assert_eq!(story.byte(&files[0], at as u64 * 4096).unwrap(), value, "round {round}");
        }
    }
    story.end().await;
}

async fn kill_after(story: &Story, milliseconds: u64) {
    let pid = story.pid("libvirtd-node-a");
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    story.kill("libvirtd-node-a");
    story.back("libvirtd-node-a", pid).await;
}
