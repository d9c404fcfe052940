//! From nothing to a guest: two charts, a label, a manifest; then the life of the guest to its end.

use crate::fleet::{Guest, install, join, pod, tell, tell_cost, uninstall};
use crds::virtual_machine::VirtualMachine;
use e2e::install::helm;
use e2e::run::Run;
use e2e::story::{Story, until};
use serde_json::json;
use std::time::Instant;

#[tokio::test]
async fn two_charts_and_a_label_make_a_node_a_host_that_runs_guests() {
    let run = Run::given().unwrap();
    uninstall(&run);
    let begun = Instant::now();
    install(&run);
    tell(&run, begun, "helm install of both charts: the controllers are ready");
    join(&run).await;
    let story = Story::alone("first").await;
    story.host_is("node-a", "True").await;
    tell(&run, begun, "the labelled node's Host and the host outside are ready");
    let mut guest = Guest::boots(&story, "web").await;
    tell(&run, begun, "the first guest was imported and has booted");
    story.host_is("node-b", "True").await;
    // It is the pod's agent that did it: node-a has no other.
    assert_eq!(pod(&story.client, "agent").await.spec.unwrap().node_name.as_deref(), Some("node-a"));
    helm(&run, &["test", "virtfleet"]).unwrap();

    story.take("before", "web", json!({})).await;
    guest.ticks_on(&story).await;
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Stopped"}})).await;
    story.vm_is("web", "True", "Stopped").await;
    story.delete::<VirtualMachine>("web").await;
    until("the end of the volume's files", async || {
        let left = story.files("node-a");
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
    for component in ["controller", "agent"] {
        tell_cost(&run, &story.client, component).await;
    }
    story.end().await;
}
