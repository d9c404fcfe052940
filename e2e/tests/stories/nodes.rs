//! A labelled Node becomes a Host with its labels, an account and a namespace; a deleted Host loses its account.

use crds::{HOSTS_NAMESPACE, Host};
use e2e::story::{Story, until};
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use plan::names::host_namespace;
use serde_json::json;

#[tokio::test]
async fn a_labelled_node_becomes_a_host() {
    let story = Story::new("nodes").await;
    let labels = json!({"virtfleet.dev/host": "true", "rack": "7"});
    story
        .apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "metal-7", "labels": labels}}))
        .await
        .unwrap();
    let hosts = Api::<Host>::all(story.client.clone());
    until("its Host", async || {
        let host = hosts.get_opt("metal-7").await.unwrap().ok_or("none")?;
        (host.labels().get("rack").map(String::as_str) == Some("7")).then_some(()).ok_or("without labels")
    })
    .await;
    let accounts = Api::<ServiceAccount>::namespaced(story.client.clone(), HOSTS_NAMESPACE);
    until("its account", async || accounts.get_opt("metal-7").await.unwrap().map(|_| ()).ok_or("none")).await;
    let namespaces = Api::<Namespace>::all(story.client.clone());
    until("its namespace", async || {
        namespaces.get_opt(&host_namespace("metal-7")).await.unwrap().map(|_| ()).ok_or("none")
    })
    .await;

    // A label that changes on the Node follows; a spec that the administrator set stays.
    hosts
        .patch("metal-7", &PatchParams::default(), &Patch::Merge(json!({"spec": {"schedulable": false}})))
        .await
        .unwrap();
    let nodes = Api::<Node>::all(story.client.clone());
    nodes
        .patch("metal-7", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"rack": "8"}}})))
        .await
        .unwrap();
    let host = until("the new label", async || {
        let host = hosts.get("metal-7").await.unwrap();
        (host.labels().get("rack").map(String::as_str) == Some("8")).then_some(host).ok_or("the old one")
    })
    .await;
    assert!(!host.spec.schedulable);

    // One that the Node loses goes too.
    let none = Patch::Merge(json!({"metadata": {"labels": {"rack": null}}}));
    nodes.patch("metal-7", &PatchParams::default(), &none).await.unwrap();
    until("no label", async || {
        let host = hosts.get("metal-7").await.unwrap();
        host.labels().get("rack").map_or(Ok(()), |rack| Err(format!("still rack {rack}")))
    })
    .await;

    nodes.delete("metal-7", &DeleteParams::default()).await.unwrap();
    hosts.delete("metal-7", &DeleteParams::default()).await.unwrap();
    until("the end of its account", async || {
        accounts.get_opt("metal-7").await.unwrap().map_or(Ok(()), |_| Err("it is there"))
    })
    .await;
    until("the end of the Host", async || {
        hosts.get_opt("metal-7").await.unwrap().map_or(Ok(()), |_| Err("it is there"))
    })
    .await;
    namespaces.delete(&host_namespace("metal-7"), &DeleteParams::default()).await.unwrap();
    story.end().await;
}
