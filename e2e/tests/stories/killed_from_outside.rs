//! Somebody pulls the plug on a guest: it is a failure, and the policy says what follows.

use crds::virtual_machine::MachinePhase;
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn a_guest_that_is_killed_comes_back_unless_its_policy_is_never() {
    let story = Story::new("killed").await;
    story.apply(story.bare("back", json!({}))).await.unwrap();
    story.apply(story.bare("gone", json!({"restartPolicy": "Never"}))).await.unwrap();
    for name in ["back", "gone"] {
        let host = story.vm_is(name, "True", "Running").await.status.unwrap().host.unwrap();
        let domain = story.domain_name(name);
        let before = story.virsh(&host, &["domid", &domain]).unwrap();
        story.virsh(&host, &["destroy", &domain]).unwrap();
        if name == "back" {
            until("another run", async || {
                let now = story.virsh(&host, &["domid", &domain]).unwrap();
                (now != before && now != "-").then_some(()).ok_or(now)
            })
            .await;
            story.vm_is(name, "True", "Running").await;
        } else {
            let vm = story.vm_is(name, "False", "Crashed").await;
            assert_eq!(vm.status.unwrap().phase, Some(MachinePhase::Crashed));
            assert_eq!(story.domain(&host, &domain), "shut off");
        }
    }
    story.end().await;
}
