//! The API server is away for a minute: guests tick on, nothing is restarted, and afterwards all is looked after again.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_guest_ticks_on_while_the_api_server_is_away() {
    let story = Story::alone("outage").await;
    story.apply(story.guest("web", json!({}))).await.unwrap();
    let host = story.vm_is("web", "True", "Running").await.status.unwrap().host.unwrap();
    story.console_says(&host, "web", "tick 2").await;
    let domain = story.domain_name("web");
    let (id, before) = (story.virsh(&host, &["domid", &domain]).unwrap(), story.ticks(&host, "web"));

    let pid = story.pid("kube-apiserver");
    story.hold("kube-apiserver");
    // The length of the outage is the story; nothing is waited for.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = story.ticks(&host, "web");
    assert!(after > before + 20, "{before} then {after}");
    assert_eq!(story.virsh(&host, &["domid", &domain]).unwrap(), id);
    story.release("kube-apiserver");
    story.back("kube-apiserver", pid).await;
    until("the API server", async || story.vm("web").await.map(|_| ()).ok_or("no answer")).await;
    story.host_is(&host, "True").await;
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Stopped"}})).await;
    story.vm_is("web", "True", "Stopped").await;
    story.end().await;
}
