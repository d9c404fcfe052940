//! The agent is killed with -9 again and again while it works: the guest is defined, started and undefined once, and ends as it should.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn an_agent_that_is_killed_at_each_step_leaves_nothing_undone_and_does_nothing_twice() {
    let story = Story::alone("killing").await;
    let place = json!({"placement": {"host": "node-a"}, "disks": [
        {"name": "data", "volumeTemplate": {"spec": {"storagePool": "killing", "capacity": "4Mi"}}}]});
    // Later and later: each kill meets another step.
    for (round, pause) in [0u64, 15, 30, 60, 90, 130, 180, 250, 350, 500].into_iter().enumerate() {
        let name = format!("vm{round}");
        story.apply(story.bare(&name, place.clone())).await.unwrap();
        kill_after(&story, pause).await;
        let vm = story.vm_is(&name, "True", "Running").await;
        let domain = story.domain_name(&name);
        assert_eq!(story.virsh("node-a", &["domuuid", &domain]).unwrap(), vm.metadata.uid.unwrap(), "defined once");
        let first = story.virsh("node-a", &["domid", &domain]).unwrap();

        story.patch::<VirtualMachine>(&name, json!({"spec": {"powerState": "Stopped"}})).await;
        kill_after(&story, pause).await;
        story.vm_is(&name, "True", "Stopped").await;
        assert_eq!(story.domain("node-a", &domain), "shut off", "run {first} was stopped");

        story.api::<VirtualMachine>().delete(&name, &kube::api::DeleteParams::default()).await.unwrap();
        kill_after(&story, pause).await;
        until("the end of the machine", async || {
            story.vm(&name).await.map_or(Ok(()), |vm| Err(format!("{:?}", vm.status)))
        })
        .await;
        assert_eq!(story.domain("node-a", &domain), "absent");
    }
    until("the end of the volumes' files", async || {
        let left = story.files("node-a");
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
    story.end().await;
}

async fn kill_after(story: &Story, milliseconds: u64) {
    let pid = story.pid("agent-node-a");
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    story.kill("agent-node-a");
    story.back("agent-node-a", pid).await;
}
