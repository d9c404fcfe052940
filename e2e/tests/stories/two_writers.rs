//! A volume has one writer; the second machine waits and says for whom.

use crds::conditions::{Type, find};
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn the_second_machine_on_a_disk_waits_until_the_first_is_gone() {
    let story = Story::new("writers").await;
    story.apply(story.volume_manifest("disk", json!({"capacity": "1Mi"}))).await.unwrap();
    let disks = json!([{"name": "disk", "volume": "disk"}]);
    story.apply(story.bare("first", json!({"disks": disks}))).await.unwrap();
    story.vm_is("first", "True", "Running").await;
    story.apply(story.bare("second", json!({"disks": disks}))).await.unwrap();
    until("the second waits", async || {
        let conditions =
            story.vm("second").await.and_then(|vm| vm.status).map(|status| status.conditions).unwrap_or_default();
        match find(&conditions, Type::Scheduled) {
            Some(c) if c.reason == "VolumeNotClaimed" && c.message.contains("machine first") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    story.delete::<VirtualMachine>("first").await;
    story.vm_is("second", "True", "Running").await;
    story.end().await;
}
