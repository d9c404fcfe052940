//! What people do to a domain with virsh does not make it another one, nor nobody's.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_domain_that_was_renamed_is_still_its_machines() {
    let story = Story::new("renamed").await;
    story.apply(story.bare("web", json!({"powerState": "Stopped", "placement": {"host": "node-a"}}))).await.unwrap();
    story.vm_is("web", "True", "Stopped").await;
    let uuid = story.virsh("node-a", &["domuuid", "renamed.web"]).unwrap();
    story.virsh("node-a", &["domrename", "renamed.web", "renamed.other"]).unwrap();
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Running"}})).await;
    let vm = story.vm_is("web", "True", "Running").await;
    assert_eq!(vm.status.unwrap().domain.unwrap().uuid, uuid);
    assert_eq!(story.domain("node-a", "renamed.other"), "running");
    assert_eq!(story.domain("node-a", "renamed.web"), "absent");
    story.delete::<VirtualMachine>("web").await;
    assert_eq!(story.domain("node-a", "renamed.other"), "absent");
    story.end().await;
}

#[tokio::test]
async fn a_running_domain_that_was_undefined_is_still_reported_and_defined_again_when_it_is_off() {
    let story = Story::new("transient").await;
    story.apply(story.bare("web", json!({"placement": {"host": "node-a"}}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let reported = async || {
        let status = story.host("node-a").await.and_then(|host| host.status).unwrap_or_default();
        status.domains.iter().any(|d| d.namespace == "transient").then_some(()).ok_or(format!("{:?}", status.domains))
    };
    until("it in the host's report", reported).await;
    let id = story.virsh("node-a", &["domid", "transient.web"]).unwrap();
    story.virsh("node-a", &["undefine", "transient.web"]).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    reported().await.unwrap();
    assert_eq!(story.virsh("node-a", &["domid", "transient.web"]).unwrap(), id);
    story.virsh("node-a", &["destroy", "transient.web"]).unwrap();
    until("it runs again, defined", async || match story.virsh("node-a", &["list", "--persistent", "--name"]) {
        Ok(names) if names.contains("transient.web") && story.domain("node-a", "transient.web") == "running" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    story.vm_is("web", "True", "Running").await;
    // Its deletion finds it undefined again.
    story.virsh("node-a", &["undefine", "transient.web"]).unwrap();
    story.delete::<VirtualMachine>("web").await;
    assert_eq!(story.domain("node-a", "transient.web"), "absent");
    story.end().await;
}
