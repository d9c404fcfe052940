//! A host's agent is silent: its machines become Unknown, none is started elsewhere, and all is told again when it is back.

use crds::virtual_machine::MachinePhase;
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn a_lost_host_makes_its_machines_unknown_and_nothing_is_placed_again() {
    let story = Story::alone("lost").await;
    let disks = json!([{"name": "data", "volumeTemplate": {"spec": {"storagePool": "lost", "capacity": "1Mi"}}}]);
    story.apply(story.bare("web", json!({"placement": {"host": "node-b"}, "disks": disks}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let domain = story.domain_name("web");
    let id = story.virsh("node-b", &["domid", &domain]).unwrap();

    let pid = story.pid("agent-node-b");
    story.hold("agent-node-b");
    let vm = story.vm_is("web", "Unknown", "HostLost").await;
    assert_eq!(vm.status.unwrap().phase, Some(MachinePhase::Unknown));
    story.volume_is("web-data", "Unknown", "HostLost").await;
    story.host_is("node-b", "Unknown").await;
    assert_eq!(story.domain("node-a", &domain), "absent");
    // New machines go where somebody answers.
    story.apply(story.bare("other", json!({}))).await.unwrap();
    assert_eq!(story.vm_is("other", "True", "Running").await.status.unwrap().host.as_deref(), Some("node-a"));

    story.release("agent-node-b");
    story.back("agent-node-b", pid).await;
    let vm = story.vm_is("web", "True", "Running").await;
    assert_eq!(vm.status.unwrap().phase, Some(MachinePhase::Running));
    story.host_is("node-b", "True").await;
    story.volume_is("web-data", "True", "Ready").await;
    assert_eq!(story.virsh("node-b", &["domid", &domain]).unwrap(), id, "it is the same run");
    until("no owner but the agent", async || {
        let vm = story.vm("web").await.ok_or("gone")?;
        let status = vm.status.unwrap_or_default();
        (status.phase == Some(MachinePhase::Running)).then_some(()).ok_or("it flickers")
    })
    .await;
    story.end().await;
}
