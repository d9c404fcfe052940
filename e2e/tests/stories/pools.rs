//! Pools that cannot be made say why; what a pool needs first blocks its end.

use crds::StoragePool;
use crds::conditions::{Type, find, is_true};
use crds::storage_volume::StorageVolume;
use e2e::story::{Story, manifest, until};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
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
    // Nothing new is made in it.
    story.apply(story.volume_manifest("late", json!({"capacity": "1Mi", "host": "node-b"}))).await.unwrap();
    story.volume_is("late", "False", "PoolTerminating").await;
    story.delete::<StorageVolume>("late").await;
    story.delete::<StorageVolume>("data").await;
    until("the end of the pool", async || story.pool().await.map_or(Ok(()), |pool| Err(format!("{:?}", pool.status))))
        .await;
    assert!(story.virsh("node-b", &["pool-info", "fullpool"]).is_err());
    story.end().await;
}

#[tokio::test]
async fn no_blank_volume_is_made_in_the_place_of_a_directory_that_is_gone() {
    let story = Story::new("unmounted").await;
    story
        .apply(story.volume_manifest("data", json!({"capacity": "1Mi", "format": "Raw", "host": "node-a"})))
        .await
        .unwrap();
    let volume = story.volume_is("data", "True", "Ready").await;
    let file = story.outside("node-a", &volume.status.unwrap().path.unwrap());
    std::fs::write(&file, "precious").unwrap();
    // As when the file system below is not mounted, and the object lost its status too.
    let dir = story.outside("node-a", "/var/lib/virtfleet/unmounted");
    let away = dir.with_file_name("unmounted-away");
    std::fs::rename(&dir, &away).unwrap();
    std::fs::create_dir(&dir).unwrap();
    let wipe = Patch::Merge(json!({"status": {"host": null, "path": null, "phase": null, "conditions": null}}));
    story.api::<StorageVolume>().patch_status("data", &PatchParams::default(), &wipe).await.unwrap();
    until("the pool's loss", async || {
        let status = story.pool().await.and_then(|pool| pool.status).unwrap_or_default();
        let ready = find(&status.conditions, Type::Ready).filter(|ready| ready.reason == "DirectoryLost");
        ready.map(|_| ()).ok_or(format!("{:?}", status.conditions))
    })
    .await;
    story.volume_is("data", "False", "PoolNotReady").await;
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);

    std::fs::remove_dir(&dir).unwrap();
    std::fs::rename(&away, &dir).unwrap();
    story.volume_is("data", "True", "Ready").await;
    // It is shorter than its volume should be, and was grown.
    assert!(std::fs::read(&file).unwrap().starts_with(b"precious"));
    story.end().await;
}

#[tokio::test]
async fn a_volume_whose_pool_is_no_more_goes_without_its_file() {
    let story = Story::new("poolless").await;
    story.apply(story.volume_manifest("data", json!({"capacity": "1Mi", "host": "node-a"}))).await.unwrap();
    let path = story.volume_is("data", "True", "Ready").await.status.unwrap().path.unwrap();
    // Somebody takes the pool's finalizer off.
    let pools = Api::<StoragePool>::all(story.client.clone());
    pools.delete("poolless", &DeleteParams::default()).await.unwrap();
    let off = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pools.patch("poolless", &PatchParams::default(), &off).await.unwrap();
    until("the end of the pool", async || story.pool().await.map_or(Ok(()), |pool| Err(format!("{:?}", pool.status))))
        .await;
    story.delete::<StorageVolume>("data").await;
    assert!(story.outside("node-a", &path).exists());
    // Made again, it takes the hosts' pools back.
    let dir = json!({"dir": {"path": "/var/lib/virtfleet/poolless"}});
    story.apply(manifest("StoragePool", "poolless", dir)).await.unwrap();
    story.apply(story.volume_manifest("more", json!({"capacity": "1Mi", "host": "node-a"}))).await.unwrap();
    story.volume_is("more", "True", "Ready").await;
    story.end().await;
}
