//! Imports that go well, badly, and on after a kill. Nothing that failed leaves half a file.

use crds::storage_volume::{StorageVolume, VolumePhase};
use e2e::story::{Story, until};
use serde_json::{Value, json};

fn volume(story: &Story, name: &str, http: Value) -> Value {
    story.volume_manifest(name, json!({"host": "node-a", "source": {"http": http}}))
}

#[tokio::test]
async fn an_import_that_fails_says_why_and_leaves_no_file_of_its_name() {
    let story = Story::new("imports").await;
    let good = story.image("", "guest.qcow2");
    let zeros = format!("sha256:{}", "0".repeat(64));
    let images = story.run.images();
    for (name, http, reason) in [
        ("wrong-sum", json!({"url": good["url"], "checksum": zeros}), "ChecksumMismatch"),
        ("missing", json!({"url": format!("{images}/nothing"), "insecure": true}), "ImportFailed"),
        ("truncated", story.image("truncated", "guest.qcow2"), "ImportTruncated"),
        ("stalled", story.image("stalled", "guest.qcow2"), "ImportStalled"),
        ("inward", story.image("inward", "guest.qcow2"), "AddressNotAllowed"),
        ("metadata", json!({"url": "http://169.254.169.254/latest", "insecure": true}), "AddressNotAllowed"),
        ("no-image", story.image("", "initrd.gz"), "WrongFormat"),
    ] {
        story.apply(volume(&story, name, http)).await.unwrap();
        let volume = story.volume_is(name, "False", reason).await;
        assert_eq!(volume.status.unwrap().phase, Some(VolumePhase::Failed), "{name}");
    }
    assert!(story.files("node-a").iter().all(|file| file.starts_with('.')), "{:?}", story.files("node-a"));
    for name in ["wrong-sum", "missing", "truncated", "stalled", "inward", "metadata", "no-image"] {
        story.delete::<StorageVolume>(name).await;
    }
    assert_eq!(story.files("node-a"), Vec::<String>::new());
    story.end().await;
}

#[tokio::test]
async fn a_redirection_is_followed_and_a_larger_capacity_given() {
    let story = Story::new("imported").await;
    let spec = json!({"host": "node-a", "capacity": "1Gi", "source": {"http": story.image("redirect", "guest.qcow2")}});
    story.apply(story.volume_manifest("grown", spec)).await.unwrap();
    let status = story.volume_is("grown", "True", "Ready").await.status.unwrap();
    assert_eq!(status.capacity.unwrap().0, "1Gi");
    let small = json!({"host": "node-a", "capacity": "1Mi", "source": {"http": story.image("", "guest.qcow2")}});
    story.apply(story.volume_manifest("small", small)).await.unwrap();
    story.volume_is("small", "False", "CapacityTooSmall").await;
    story.end().await;
}

#[tokio::test]
async fn an_import_goes_on_after_the_agent_was_killed() {
    let story = Story::alone("resumed").await;
    story.apply(volume(&story, "slow", story.image("slow", "guest.qcow2"))).await.unwrap();
    let received = |story: &Story| {
        let dir = story.outside("node-a", "/var/lib/virtfleet/resumed");
        let parts = std::fs::read_dir(dir).into_iter().flatten().flatten();
        parts
            .filter(|p| p.path().extension().is_some_and(|e| e == "part"))
            .map(|p| p.metadata().map_or(0, |m| m.len()))
            .sum::<u64>()
    };
    until("some of it", async || (received(&story) > 4 << 20).then_some(()).ok_or("not yet")).await;
    let progress = until("progress", async || {
        let status = story.volume("slow").await.and_then(|volume| volume.status).unwrap_or_default();
        status.progress.filter(|text| text.ends_with('%') && text != "0%").ok_or("none")
    })
    .await;
    assert!(progress.len() <= 3, "{progress}");
    let (pid, before) = (story.pid("agent-node-a"), received(&story));
    story.kill("agent-node-a");
    story.back("agent-node-a", pid).await;
    story.volume_is("slow", "True", "Ready").await;
    let log = std::fs::read_to_string(story.run.dir.join("log/agent-node-a.log")).unwrap();
    assert!(before > 0 && log.contains("volume resumed/slow: import"));
    assert_eq!(story.files("node-a").len(), 1, "{:?}", story.files("node-a"));
    story.end().await;
}
