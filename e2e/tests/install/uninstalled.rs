//! Without the charts guests run on, and a new install takes them back.

use crate::fleet::{self, Guest, install, join, uninstall};
use e2e::story::until;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

#[tokio::test]
async fn guests_outlive_an_uninstallation_and_are_taken_back() {
    let story = fleet::story("uninstalled").await;
    let mut guest = Guest::boots(&story, "web").await;
    let uid = story.vm("web").await.unwrap().metadata.uid;

    uninstall(&story.run);
    let pods = Api::<Pod>::namespaced(story.client.clone(), "virtfleet-system");
    until("the end of our pods", async || {
        let ours = ListParams::default().labels("app.kubernetes.io/component in (agent, controller)");
        let left = pods.list(&ours).await.map_err(|error| error.to_string())?.items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
    })
    .await;
    guest.ticks_on(&story).await;
    // The definitions stay, and with them what users wrote.
    assert_eq!(story.vm("web").await.unwrap().metadata.uid, uid);

    install(&story.run);
    story.host_is("node-a", "True").await;
    // Accounts went with the chart: a host outside needs a new token, and is known to be lost until it has one.
    story.host_is("node-b", "Unknown").await;
    join(&story.run).await;
    story.host_is("node-b", "True").await;
    story.vm_is("web", "True", "Running").await;
    story.take("after", "web", serde_json::json!({})).await;
    guest.ticks_on(&story).await;
    story.end().await;
}
