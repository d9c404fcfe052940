//! A machine that no host has room for waits, says why host by host, and is placed when something changes.

use crds::conditions::{Type, find};
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;

async fn scheduled(story: &Story, reason: &str) -> String {
    until(&format!("Scheduled {reason}"), async || {
        let status = story.vm("web").await.and_then(|vm| vm.status).unwrap_or_default();
        match find(&status.conditions, Type::Scheduled) {
            Some(c) if c.reason == reason => Ok(c.message.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn a_machine_without_a_host_says_why_and_goes_where_there_is_room() {
    let story = Story::new("nofit").await;
    story.apply(story.bare("web", json!({"memory": {"size": "4Ti"}}))).await.unwrap();
    let why = scheduled(&story, "NoHostFits").await;
    // Another story may have a Host of its own.
    assert!(why.starts_with("0 of ") && why.contains("node-a: ") && why.contains("4194304 MiB are needed"), "{why}");

    let selector = json!({"hostSelector": {"matchLabels": {"disk": "fast"}}});
    story.patch::<VirtualMachine>("web", json!({"spec": {"memory": {"size": "32Mi"}, "placement": selector}})).await;
    until("the selector's refusal", async || {
        let why = scheduled(&story, "NoHostFits").await;
        why.contains("hostSelector").then_some(()).ok_or(why)
    })
    .await;
    story
        .patch::<VirtualMachine>("web", json!({"spec": {"placement": {"hostSelector": null, "host": "node-b"}}}))
        .await;
    let vm = story.vm_is("web", "True", "Running").await;
    assert_eq!(vm.status.unwrap().host.as_deref(), Some("node-b"));
    story.end().await;
}
