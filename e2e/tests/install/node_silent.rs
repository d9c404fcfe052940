//! Everything of Kubernetes on the node ends, our agent too: the guest does not notice, and is taken back as it is.

use crate::fleet::{self, Guest, pod};
use e2e::story::{Story, until};
use kube::ResourceExt;

const STOPPED: [&str; 2] = ["kubelet-node-a", "containerd-node-a"];

#[tokio::test]
async fn a_guest_ticks_on_while_kubelet_containerd_and_agent_are_gone() {
    let story = fleet::story("silent").await;
    let mut guest = Guest::boots(&story, "web").await;
    let before = pod(&story.client, "agent").await;

    let pids = STOPPED.map(|program| (program, story.pid(program)));
    STOPPED.iter().for_each(|program| story.hold(program));
    // Nobody is left to start it again.
    story.on_host("node-a", &["kill", "-9", &agent(&story).unwrap()]).unwrap();
    story.vm_is("web", "Unknown", "HostLost").await;
    assert_eq!(agent(&story), None);
    guest.ticks_on(&story).await;

    STOPPED.iter().for_each(|program| story.release(program));
    for (program, pid) in pids {
        story.back(program, pid).await;
    }
    story.vm_is("web", "True", "Running").await;
    story.host_is("node-a", "True").await;
    guest.ticks_on(&story).await;
    let restarts = until("the agent's next container", async || {
        let now = pod(&story.client, "agent").await;
        assert_eq!(now.name_any(), before.name_any(), "the same pod");
        let status = now.status.and_then(|status| status.container_statuses).ok_or("no status")?;
        status.first().map(|container| container.restart_count).filter(|count| *count > 0).ok_or("not counted yet")
    })
    .await;
    assert_eq!(restarts, 1);
    story.end().await;
}

/// Process of the pod's agent, as the node numbers it.
fn agent(story: &Story) -> Option<String> {
    let pids = story.on_host("node-a", &["pgrep", "-x", "virtfleet-agent"]).ok()?;
    Some(pids.trim().to_owned())
}
