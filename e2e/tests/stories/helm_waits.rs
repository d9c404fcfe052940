//! `helm install --wait` of a chart that holds machines returns when they are ready, and fails when they cannot be.

use e2e::story::Story;
use serde_json::{Value, json};
use std::fs;

#[tokio::test]
async fn helm_waits_until_a_charts_machines_run_or_cannot() {
    let story = Story::new("helm").await;
    let own = json!({"spec": {"storagePool": "helm", "capacity": "8Mi"}});
    let disks = json!([{"name": "data", "volume": "data"}, {"name": "own", "volumeTemplate": own}]);
    let good = [
        story.volume_manifest("data", json!({"capacity": "8Mi"})),
        story.bare("web", json!({"disks": disks})),
        // What is meant to be off is ready when it is off.
        story.bare("spare", json!({"powerState": "Stopped"})),
    ];
    let chart = chart(&story, "shop", &good);
    story.helm(&["install", "shop", &chart, "--wait", "--timeout=90s"]).unwrap();
    let vm = story.vm("web").await.unwrap();
    let host = vm.status.as_ref().and_then(|status| status.host.clone()).unwrap();
    assert_eq!(story.domain(&host, "helm.web"), "running", "it said that it runs");

    // An upgrade that changes nothing touches nothing.
    story.helm(&["upgrade", "shop", &chart, "--wait", "--timeout=90s"]).unwrap();
    let after = story.vm("web").await.unwrap();
    assert_eq!(after.metadata.resource_version, vm.metadata.resource_version);

    // A disk smaller than its image is refused for good, and Helm gives the reason at once.
    let source = json!({"http": story.image("", "guest.qcow2")});
    let bad = [story.volume_manifest("small", json!({"host": "node-a", "capacity": "1Mi", "source": source}))];
    let chart = self::chart(&story, "bad", &bad);
    let begun = std::time::Instant::now();
    let said = story.helm(&["install", "bad", &chart, "--wait", "--timeout=90s"]).unwrap_err().to_string();
    assert!(said.contains("small") && said.contains("Failed"), "{said}");
    assert!(begun.elapsed().as_secs() < 60, "it waited to the end");

    // So is a machine that is to have one.
    let source = json!({"http": story.image("", "guest.qcow2")});
    let own = json!({"spec": {"storagePool": "helm", "capacity": "1Mi", "source": source}});
    let stuck = [story.bare("stuck", json!({"disks": [{"name": "root", "volumeTemplate": own}]}))];
    let chart = self::chart(&story, "stuck", &stuck);
    let begun = std::time::Instant::now();
    let said = story.helm(&["install", "stuck", &chart, "--wait", "--timeout=90s"]).unwrap_err().to_string();
    assert!(said.contains("stuck") && said.contains("Failed"), "{said}");
    assert!(begun.elapsed().as_secs() < 60, "it waited to the end");
    story.vm_is("stuck", "False", "VolumeStalled").await;

    for release in ["stuck", "bad", "shop"] {
        story.helm(&["uninstall", release]).unwrap();
    }
    story.end().await;
}

/// A chart of these manifests, as someone would write who has nothing to set.
fn chart(story: &Story, name: &str, manifests: &[Value]) -> String {
    let dir = story.run.dir.join("charts").join(name);
    fs::create_dir_all(dir.join("templates")).unwrap();
    fs::write(dir.join("Chart.yaml"), format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n")).unwrap();
    for (index, manifest) in manifests.iter().enumerate() {
        fs::write(dir.join(format!("templates/{index}.yaml")), manifest.to_string()).unwrap();
    }
    dir.to_string_lossy().into_owned()
}
