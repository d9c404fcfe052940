//! Two machines of two imported disks boot on different hosts, and their status tells what their guests tell.

use crds::virtual_machine::{MachinePhase, VirtualMachine};
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn two_guests_boot_from_their_disks_on_two_hosts() {
    let story = Story::alone("boot").await;
    story
        .apply(story.volume_manifest("root", json!({"source": {"http": story.image("", "guest.qcow2")}})))
        .await
        .unwrap();
    let disks = json!([{"name": "root", "bootOrder": 1, "volume": "root"}]);
    story.apply(story.guest("one", json!({"disks": disks}))).await.unwrap();
    story.apply(story.guest("two", json!({}))).await.unwrap();

    let mut hosts = Vec::new();
    for name in ["one", "two"] {
        let vm = story.vm_is(name, "True", "Running").await;
        let status = vm.status.unwrap();
        assert_eq!(status.phase, Some(MachinePhase::Running));
        let host = status.host.unwrap();
        assert_eq!(story.domain(&host, &story.domain_name(name)), "running");
        story.console_says(&host, name, "VIRTFLEET-GUEST-UP boot=1").await;
        hosts.push(host);
    }
    assert_ne!(hosts[0], hosts[1], "the emptiest host is chosen");

    let told = until("what the guest tells", async || {
        let status = story.vm("one").await.and_then(|vm: VirtualMachine| vm.status).ok_or("no status")?;
        let address = status
            .interfaces
            .first()
            .and_then(|nic| nic.addresses.first())
            .ok_or(format!("{:?}", status.interfaces))?;
        let os = status.guest.clone().and_then(|guest| guest.os).ok_or("no system")?;
        Ok::<_, String>((address.clone(), os))
    })
    .await;
    assert_eq!(told, ("10.0.2.15".to_owned(), "Virtfleet test guest".to_owned()));
    story.end().await;
}
