//! What Git says and what the cluster has stay equal: nothing of ours writes into what users wrote.

use e2e::story::{Story, manifest};
use serde_json::{Value, json};

/// One of each kind that users write, and the volume that is made of a template.
const OBJECTS: [&str; 6] = ["host/gitops", "pool/gitops-2", "vol/data", "vol/web-own", "vm/web", "snap/first"];

#[tokio::test]
async fn what_was_applied_differs_in_nothing_once_it_is_ready() {
    let story = Story::new("gitops").await;
    // Spelled as users spell, not as a computer would.
    let template = json!({"spec": {"storagePool": "gitops-2", "capacity": "0.0625Gi"}});
    let disks = json!([{"name": "data", "volume": "data"}, {"name": "own", "volumeTemplate": template}]);
    let items = [
        manifest("Host", "gitops", json!({"schedulable": false, "reserved": {"cpu": "0.50"}})),
        manifest("StoragePool", "gitops-2", json!({"dir": {"path": "/var/lib/virtfleet/gitops-2"}})),
        story.volume_manifest("data", json!({"storagePool": "gitops-2", "capacity": "8192Ki"})),
        story.bare("web", json!({"memory": {"size": "33554432"}, "disks": disks})),
        manifest("Snapshot", "first", json!({"virtualMachine": "web"})),
    ];
    let file = story.run.dir.join("gitops.json");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).unwrap();
    let file = file.to_string_lossy();

    // By hand; then as Flux and Argo CD do it. (Where the second takes an empty map over from the first, such as `cpu: {}`, the API server
    // makes it null: what may be empty needs a default.)
    for how in [&[][..], &["--server-side", "--force-conflicts"]] {
        let said = story.kubectl(&[&["apply", "-f", &file], how].concat()).unwrap();
        assert_eq!(said.lines().count(), items.len(), "{said}");
        story.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", "vm/web", "snap/first"]).unwrap();
        let before = specs(&story);
        // It fails when there is a difference, and says it.
        assert_eq!(story.kubectl(&[&["diff", "-f", &file], how].concat()).unwrap(), "");
        // (Before it asks, kubectl does not know of defaults within lists: it may say `configured` where nothing is.)
        story.kubectl(&[&["apply", "-f", &file], how].concat()).unwrap();
        assert_eq!(specs(&story), before, "a second apply changed something");
    }

    story.kubectl(&["delete", "host/gitops", "snap/first", "vm/web", "vol/data", "pool/gitops-2"]).unwrap();
    story.end().await;
}

/// Generation and spec of each.
fn specs(story: &Story) -> Vec<Value> {
    let specs = OBJECTS.map(|name| {
        let text = story.kubectl(&["get", name, "-o", "json"]).unwrap();
        let object: Value = serde_json::from_str(&text).unwrap();
        json!([name, object["metadata"]["generation"], object["spec"]])
    });
    specs.to_vec()
}
