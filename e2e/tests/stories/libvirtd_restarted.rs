//! libvirtd dies and comes back: guests go on, the agent finds its way back and hears what happens from then on.

use crds::virtual_machine::VirtualMachine;
use e2e::story::Story;
use serde_json::json;

#[tokio::test]
async fn guests_outlive_libvirtd_and_are_looked_after_again() {
    let story = Story::alone("libvirtd").await;
    story.apply(story.bare("web", json!({"placement": {"host": "node-a"}, "restartPolicy": "Never"}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let domain = story.domain_name("web");
    let id = story.virsh("node-a", &["domid", &domain]).unwrap();

    let pid = story.pid("libvirtd-node-a");
    story.hold("libvirtd-node-a");
    story.vm_is("web", "Unknown", "LibvirtUnreachable").await;
    story.host_is("node-a", "False").await;
    // A wish while nobody can follow it is followed later.
    story.patch::<VirtualMachine>("web", json!({"metadata": {"labels": {"seen": "yes"}}})).await;
    story.release("libvirtd-node-a");
    story.back("libvirtd-node-a", pid).await;
    story.vm_is("web", "True", "Running").await;
    story.host_is("node-a", "True").await;
    assert_eq!(story.virsh("node-a", &["domid", &domain]).unwrap(), id, "it is the same run");

    // Events come again.
    story.virsh("node-a", &["destroy", &domain]).unwrap();
    story.vm_is("web", "False", "Crashed").await;
    story.end().await;
}
