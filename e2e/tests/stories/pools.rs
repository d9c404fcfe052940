//! Pools that cannot be made say why; what a pool needs first blocks its end.

use crds::StoragePool;
use crds::conditions::{Type, find, is_true};
use crds::storage_volume::StorageVolume;
use e2e::story::{Story, manifest, until};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test]
async fn a_pool_that_cannot_be_made_names_host_and_reason() {
    let story = Story::new("badpools").await;
    std::fs::write(story.outside("node-a", "/var/lib/virtfleet/badpools-file"), "data").unwrap();
    for (name, path, reason) in [
        ("badpools-file", "/var/lib/virtfleet/badpools-file", "NotADirectory"),
        ("badpools-outside", "/etc/virtfleet", "PathNotAllowed"),
    ] {
        story.apply(manifest("StoragePool", name, json!({"dir": {"path": path}}))).await.unwrap();
        until(&format!("{name}: {reason}"), async || {
            let pool = Api::<StoragePool>::all(story.client.clone()).get(name).await.unwrap();
            match find(&pool.status.unwrap_or_default().conditions, Type::Ready) {
                Some(ready) if ready.reason == reason && ready.message.contains("node-a: ") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        Api::<StoragePool>::all(story.client.clone()).delete(name, &DeleteParams::default()).await.unwrap();
    }
    assert_eq!(std::fs::read(story.outside("node-a", "/var/lib/virtfleet/badpools-file")).unwrap(), b"data");
    std::fs::remove_file(story.outside("node-a", "/var/lib/virtfleet/badpools-file")).unwrap();
    story.end().await;
}

#[tokio::test]
async fn a_pool_with_volumes_waits_for_their_end() {
    let story = Story::new("fullpool").await;
    story.apply(story.volume_manifest("data", json!({"capacity": "1Mi", "host": "node-b"}))).await.unwrap();
    story.volume_is("data", "True", "Ready").await;
    let pools = Api::<StoragePool>::all(story.client.clone());
    pools.delete("fullpool", &DeleteParams::default()).await.unwrap();
    until("the pool's DeletionBlocked", async || {
        let status = story.pool().await.and_then(|pool| pool.status).unwrap_or_default();
        is_true(&status.conditions, Type::DeletionBlocked).then_some(()).ok_or(format!("{:?}", status.conditions))
    })
    .await;
    assert!(story.virsh("node-b", &["pool-info", "fullpool"]).unwrap().contains("running"));
    story.delete::<StorageVolume>("data").await;
    until("the end of the pool", async || story.pool().await.map_or(Ok(()), |pool| Err(format!("{:?}", pool.status))))
        .await;
    assert!(story.virsh("node-b", &["pool-info", "fullpool"]).is_err());
    story.end().await;
}
