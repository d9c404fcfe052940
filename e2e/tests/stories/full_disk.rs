//! The disk is full at the worst moment: nothing is lost, the space is given back, others go on, and it goes on by itself when there is room.

use crds::conditions::{Type, is_true};
use crds::storage_volume::{StorageVolume, VolumePhase};
use e2e::story::{Story, until};
use serde_json::{Value, json};

const HOST: &str = "node-a";

/// A story whose pool is a small file system of its own.
async fn small(name: &str, size: &str) -> Story {
    let story = Story::new(name).await;
    until("the pool", async || {
        let status = story.pool().await.and_then(|pool| pool.status).unwrap_or_default();
        is_true(&status.conditions, Type::Ready).then_some(()).ok_or(format!("{:?}", status.conditions))
    })
    .await;
    let options = format!("size={size},mode=0711");
    story.on_host(HOST, &["mount", "-t", "tmpfs", "-o", &options, "tmpfs", &dir(&story)]).unwrap();
    // The administrator's word that this is the pool's directory.
    story.on_host(HOST, &["touch", &format!("{}/.virtfleet-pool", dir(&story))]).unwrap();
    story
}

fn dir(story: &Story) -> String {
    format!("/var/lib/virtfleet/{}", story.namespace)
}

fn used_kib(story: &Story) -> u64 {
    let told = story.on_host(HOST, &["df", "--output=used", "-k", &dir(story)]).unwrap();
    told.lines().last().and_then(|line| line.trim().parse().ok()).unwrap()
}

async fn end(story: Story) {
    for name in ["import", "endless", "raw", "qcow2", "late"] {
        if story.volume(name).await.is_some() {
            story.delete::<StorageVolume>(name).await;
        }
    }
    assert!(used_kib(&story) < 64, "{} KiB are left", used_kib(&story));
    story.on_host(HOST, &["umount", &dir(&story)]).unwrap();
    story.end().await;
}

fn on_host(spec: Value) -> Value {
    e2e::story::merged(json!({"host": HOST, "deletionPolicy": "Delete"}), spec)
}

#[tokio::test]
async fn an_import_that_does_not_fit_gives_its_space_back_and_comes_when_there_is_room() {
    let story = small("fullimport", "16m").await;
    let endless = json!({"url": format!("{}/endless/guest.qcow2", story.run.images()), "insecure": true});
    let endless = on_host(json!({"format": "Raw", "source": {"http": endless}}));
    story.apply(story.volume_manifest("endless", endless)).await.unwrap();
    story.volume_is("endless", "False", "NoSpace").await;
    until("the space again", async || (used_kib(&story) < 64).then_some(()).ok_or(used_kib(&story))).await;
    story.delete::<StorageVolume>("endless").await;
    // Nobody waits for the end of what begins as no image.
    let endless = json!({"url": format!("{}/endless/guest.qcow2", story.run.images()), "insecure": true});
    story.apply(story.volume_manifest("endless", on_host(json!({"source": {"http": endless}})))).await.unwrap();
    story.volume_is("endless", "False", "WrongFormat").await;
    story.delete::<StorageVolume>("endless").await;

    // The guest's image has some 19 MB: that it does not fit is known before a byte is written.
    let image = on_host(json!({"source": {"http": story.image("", "guest.qcow2")}}));
    story.apply(story.volume_manifest("import", image)).await.unwrap();
    let failed = story.volume_is("import", "False", "NoSpace").await.status.unwrap();
    assert_eq!(failed.phase, Some(VolumePhase::Failed));
    assert!(used_kib(&story) < 64);
    // Nobody else is delayed.
    story.apply(story.volume_manifest("late", on_host(json!({"capacity": "1Mi"})))).await.unwrap();
    story.volume_is("late", "True", "Ready").await;

    story.on_host(HOST, &["mount", "-o", "remount,size=64m", &dir(&story)]).unwrap();
    story.volume_is("import", "True", "Ready").await;
    end(story).await;
}

#[tokio::test]
async fn a_growth_that_does_not_fit_leaves_a_usable_volume_and_comes_when_there_is_room() {
    let story = small("fullgrowth", "8m").await;
    for (name, format) in [("raw", "Raw"), ("qcow2", "Qcow2")] {
        let spec = on_host(json!({"capacity": "1Mi", "format": format, "allocation": "Full"}));
        story.apply(story.volume_manifest(name, spec)).await.unwrap();
        story.volume_is(name, "True", "Ready").await;
    }
    for name in ["raw", "qcow2"] {
        story.patch::<StorageVolume>(name, json!({"spec": {"capacity": "32Mi"}})).await;
        let failed = story.volume_is(name, "False", "NoSpace").await.status.unwrap();
        assert_eq!((failed.phase, failed.capacity.unwrap().0.as_str()), (Some(VolumePhase::Resizing), "1Mi"));
    }
    assert!(used_kib(&story) < 4096, "{} KiB", used_kib(&story));
    let disks = json!([{"name": "a", "volume": "raw"}, {"name": "b", "volume": "qcow2"}]);
    story.apply(story.bare("web", json!({"disks": disks, "powerState": "Stopped"}))).await.unwrap();
    story.vm_is("web", "True", "Stopped").await;
    story.on_host(HOST, &["mount", "-o", "remount,size=128m", &dir(&story)]).unwrap();
    for name in ["raw", "qcow2"] {
        let grown = story.volume_is(name, "True", "Ready").await.status.unwrap();
        assert_eq!(grown.capacity.unwrap().0, "32Mi");
    }
    story.delete::<crds::VirtualMachine>("web").await;
    end(story).await;
}
