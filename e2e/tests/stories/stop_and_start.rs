//! A guest is shut down when asked, stays off, and starts again from the same disk.

use crds::conditions::{Type, is_true};
use crds::virtual_machine::{MachinePhase, VirtualMachine};
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn a_guest_shuts_down_by_itself_when_asked_and_finds_its_disk_again() {
    let story = Story::new("power").await;
    story.apply(story.guest("web", json!({}))).await.unwrap();
    let host = story.vm_is("web", "True", "Running").await.status.unwrap().host.unwrap();
    let domain = story.domain_name("web");
    story.console_says(&host, "web", "VIRTFLEET-GUEST-UP boot=1").await;
    assert!(story.virsh(&host, &["dominfo", &domain]).unwrap().contains("Autostart:      enable"));

    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Stopped"}})).await;
    let stopped = story.vm_is("web", "True", "Stopped").await;
    assert_eq!(stopped.status.unwrap().phase, Some(MachinePhase::Stopped));
    // Not the plug: the guest was asked.
    assert_eq!(story.virsh(&host, &["domstate", "--reason", &domain]).unwrap(), "shut off (shutdown)");
    until("autostart off", async || {
        let info = story.virsh(&host, &["dominfo", &domain]).unwrap();
        info.contains("Autostart:      disable").then_some(()).ok_or(info)
    })
    .await;

    // What is changed while it is off holds at the next start.
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Running", "cpu": {"cores": 2}}})).await;
    let vm = story.vm_is("web", "True", "Running").await;
    assert_eq!(vm.status.unwrap().resources.unwrap().cores, 2);
    story.console_says(&host, "web", "VIRTFLEET-GUEST-UP boot=2").await;

    // A running guest keeps what it has, and says what waits.
    let before = story.virsh(&host, &["domid", &domain]).unwrap();
    story.patch::<VirtualMachine>("web", json!({"spec": {"memory": {"size": "256Mi"}}})).await;
    until("what waits for a restart", async || {
        let status = story.vm("web").await.and_then(|vm| vm.status).unwrap_or_default();
        is_true(&status.conditions, Type::RestartRequired).then_some(()).ok_or(format!("{:?}", status.conditions))
    })
    .await;
    assert_eq!(story.virsh(&host, &["domid", &domain]).unwrap(), before);

    // The annotation restarts once.
    story
        .patch::<VirtualMachine>("web", json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": "now"}}}))
        .await;
    story.console_says(&host, "web", "VIRTFLEET-GUEST-UP boot=3").await;
    let vm = until("the new memory", async || {
        let vm = story.vm("web").await.ok_or("gone")?;
        let memory = vm.status.as_ref().and_then(|status| status.resources.as_ref()).map(|r| r.memory.0.clone());
        (memory.as_deref() == Some("256Mi")).then_some(vm).ok_or("still the old")
    })
    .await;
    assert!(!is_true(&vm.status.unwrap().conditions, Type::RestartRequired));
    story.end().await;
}
