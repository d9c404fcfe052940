//! An upgrade of the chart replaces agents, not guests; an upgrade that changes nothing replaces nothing.

use crate::fleet::{self, Guest, pod, settings};
use e2e::install::chart;
use e2e::story::until;
use kube::ResourceExt;

#[tokio::test]
async fn an_upgrade_restarts_agents_and_no_guest() {
    let story = fleet::story("upgraded").await;
    let mut guest = Guest::boots(&story, "web").await;
    let first = pod(&story.client, "agent").await.uid();

    chart(&story.run, "virtfleet", &[&settings(&story.run), "--set=agent.logFormat=text"]).unwrap();
    let second = until("another agent", async || {
        let now = pod(&story.client, "agent").await.uid();
        if now == first { Err("the old one") } else { Ok(now) }
    })
    .await;
    guest.ticks_on(&story).await;
    story.host_is("node-a", "True").await;
    story.vm_is("web", "True", "Running").await;

    // It obeys as the one before.
    story.take("after", "web", serde_json::json!({})).await;
    guest.ticks_on(&story).await;

    chart(&story.run, "virtfleet", &[&settings(&story.run), "--set=agent.logFormat=text"]).unwrap();
    assert_eq!(pod(&story.client, "agent").await.uid(), second, "nothing was changed");
    story.end().await;
}
