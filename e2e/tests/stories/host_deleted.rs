//! A Host that is deleted under its running guests: they run on, users are told that nobody can tell, and a Host made again has them all.

use crds::Host;
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_host_that_is_deleted_and_made_again_has_its_guests() {
    let story = Story::alone("unhosted").await;
    let disks = json!([{"name": "data", "volumeTemplate": {"spec": {"storagePool": "unhosted", "capacity": "1Mi"}}}]);
    story.apply(story.bare("web", json!({"placement": {"host": "node-b"}, "disks": disks}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    // An image that cannot come, behind a password.
    story.secret("login", json!({"username": "me", "password": "word"})).await;
    let nowhere = format!("https://{}:1/guest.qcow2", story.run.address());
    story.apply(story.secret_volume("far", "node-b", &nowhere, json!({"secret": "login"}))).await.unwrap();
    let far = story.volume_is("far", "False", "ImportFailed").await;
    assert!(story.secret_copy("node-b", &far).await.is_some());
    let domain = story.domain_name("web");
    let id = story.virsh("node-b", &["domid", &domain]).unwrap();
    let hosts = Api::<Host>::all(story.client.clone());

    let begun = Instant::now();
    hosts.delete("node-b", &DeleteParams::default()).await.unwrap();
    story.vm_is("web", "Unknown", "HostLost").await;
    story.volume_is("web-data", "Unknown", "HostLost").await;
    story.no_secret_copy("node-b", &far).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "told after {:?}", begun.elapsed());
    // Its account's token is good for some seconds yet, and its guests are looked at: nobody contradicts the controller.
    let version = story.vm("web").await.unwrap().resource_version();
    let pid = story.pid("agent-node-b");
    story.kill("agent-node-b");
    story.back("agent-node-b", pid).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(story.vm("web").await.unwrap().resource_version(), version);
    assert_eq!(story.virsh("node-b", &["domid", &domain]).unwrap(), id);
    assert!(!story.domain("node-a", &domain).contains("running"));

    story.rejoin("node-b").await;
    let pid = story.pid("agent-node-b");
    story.kill("agent-node-b");
    story.back("agent-node-b", pid).await;
    story.host_is("node-b", "True").await;
    story.vm_is("web", "True", "Running").await;
    story.volume_is("web-data", "True", "Ready").await;
    assert_eq!(story.virsh("node-b", &["domid", &domain]).unwrap(), id, "it is the same run");
    until("the copy again", async || story.secret_copy("node-b", &far).await.map(drop).ok_or("not yet")).await;
    assert_eq!(story.api::<VirtualMachine>().list(&ListParams::default()).await.unwrap().items.len(), 1);
    story.end().await;
}
