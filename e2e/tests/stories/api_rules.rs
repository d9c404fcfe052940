//! What the API server itself refuses, each with the words that say which field and what to do.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, manifest, merged};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

fn vm(spec: Value) -> Value {
    manifest("VirtualMachine", "web", merged(json!({"cpu": {}, "memory": {"size": "1Gi"}}), spec))
}

fn volume(spec: Value) -> Value {
    manifest("StorageVolume", "disk", merged(json!({"storagePool": "images", "capacity": "1Gi"}), spec))
}

fn http(http: Value) -> Value {
    volume(json!({"source": {"http": http}}))
}

fn snapshot(spec: Value) -> Value {
    manifest("Snapshot", "before", merged(json!({"virtualMachine": "web"}), spec))
}

fn disks(disks: Value) -> Value {
    vm(json!({"disks": disks}))
}

#[tokio::test]
async fn good_manifests_are_accepted() {
    let story = Story::new("accepted").await;
    let template = json!({"spec": {"storagePool": "p", "capacity": "5Gi"}});
    for manifest in [
        vm(json!({})),
        vm(json!({"cpu": {"cores": 8, "model": "Skylake-Server"}, "memory": {"size": 1_073_741_824}})),
        disks(
            json!([{"name": "a", "volume": "x", "bootOrder": 1}, {"name": "b", "volumeTemplate": template, "bootOrder": 2}]),
        ),
        vm(json!({"interfaces": [{"name": "lan", "user": {}, "macAddress": "52:54:00:00:00:01"}]})),
        volume(json!({})),
        volume(
            json!({"capacity": null, "source": {"http": {"url": "https://example.com/a.qcow2?x=1", "insecure": true}}}),
        ),
        http(json!({"url": "https://a/b", "insecure": true, "secret": "login.of-me", "caBundle": PEM})),
        manifest("StoragePool", "p", json!({"dir": {"path": "/var/lib/x"}})),
        snapshot(json!({})),
        snapshot(json!({"method": "Internal", "disks": {"include": ["a", "b"]}, "deletionPolicy": "Retain"})),
        manifest("Host", "edge", json!({"overcommit": {"cpu": "1.5"}})),
    ] {
        assert_eq!(story.refusal(manifest.clone()).await, None, "{manifest}");
    }
    story.end().await;
}

#[tokio::test]
async fn each_bad_manifest_is_refused_with_its_field_and_what_to_do() {
    let story = Story::new("refused").await;
    let sum = "sha256:".to_owned() + &"a".repeat(64);
    let template =
        |spec: Value| json!([{"name": "a", "volumeTemplate": {"spec": merged(json!({"storagePool": "p"}), spec)}}]);
    let named = |name: &str| {
        json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": name}, "spec": {"cpu": {}, "memory": {"size": "1Gi"}}})
    };
    let table = [
        (named("a.b"), "metadata.name"),
        (named(&"a".repeat(64)), "metadata.name"),
        (
            vm(json!({"memory": {"size": "1Mi"}})),
            "spec.memory.size: Invalid value: \"1Mi\": size must be from 16Mi to 16Ti",
        ),
        (vm(json!({"memory": {}})), "spec.memory.size: Required"),
        (vm(json!({"cpu": {"cores": 0}})), "spec.cpu.cores"),
        (vm(json!({"cpu": {"model": "\"><qemu:commandline>"}})), "model must be HostModel"),
        (vm(json!({"powerState": "On"})), "spec.powerState: Unsupported value"),
        (vm(json!({"shutdown": {"timeoutSeconds": -1}})), "spec.shutdown.timeoutSeconds"),
        (disks(json!([{"name": "a"}])), "disk a: exactly one of volume or volumeTemplate must be set"),
        (disks(json!([{"name": "A", "volume": "x"}])), "name must be a DNS label"),
        (disks(json!([{"name": "a", "volume": "x"}, {"name": "a", "volume": "y"}])), "Duplicate value"),
        (
            disks(json!([{"name": "a", "volume": "x", "bootOrder": 1}, {"name": "b", "volume": "y", "bootOrder": 1}])),
            "bootOrder must differ from disk to disk",
        ),
        (disks(template(json!({}))), "capacity is required for a blank volume"),
        (disks(template(json!({"capacity": "0"}))), "capacity"),
        (
            vm(json!({"interfaces": [{"name": "lan", "user": {}, "macAddress": "01:00:00:00:00:00"}]})),
            "macAddress must be six pairs of lower case hexadecimal digits",
        ),
        (volume(json!({"capacity": null})), "capacity is required for a blank volume"),
        (volume(json!({"capacity": "0"})), "capacity must be more than 0"),
        (volume(json!({"format": "Vmdk"})), "spec.format: Unsupported value"),
        (
            volume(json!({"allocation": "Full", "source": {"http": {"url": "http://a/b", "insecure": true}}})),
            "spec.allocation: Invalid value: allocation Full with a source needs format Raw",
        ),
        (
            disks(template(json!({"allocation": "Full", "source": {"http": {"url": "http://a/b", "insecure": true}}}))),
            "allocation Full with a source needs format Raw",
        ),
        (
            disks(template(json!({"capacity": "1Gi", "source": {"http": {"url": "ftp://a/b", "insecure": true}}}))),
            "url must be http://",
        ),
        (
            json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine", "metadata": {"name": "a".repeat(62)},
                "spec": {"cpu": {}, "memory": {"size": "1Gi"}, "disks": template(json!({"capacity": "1Gi"}))}}),
            "must be at most 62 characters together",
        ),
        (vm(json!({"interfaces": [{"name": "L", "user": {}}]})), "name must be a DNS label"),
        (
            manifest("Host", "h", json!({"overcommit": {"memory": "x"}})),
            "memory must be a decimal number of at least 1",
        ),
        (http(json!({"url": "ftp://a/b", "insecure": true})), "url must be http://"),
        (http(json!({"url": "http://user:word@a/b", "insecure": true})), "without user or password"),
        (http(json!({"url": "http://a/b"})), "give a checksum"),
        (http(json!({"url": "http://a/b", "insecure": true, "checksum": sum})), "not both"),
        (http(json!({"url": "http://a/b", "checksum": "md5:1"})), "checksum must be sha256:"),
        (http(json!({"url": "http://a/b", "insecure": true, "secret": "x"})), "a password never travels in clear"),
        (http(json!({"url": "https://a/b", "insecure": true, "secret": "X/y"})), "must be the name of a Secret"),
        (
            http(json!({"url": "http://a/b", "insecure": true, "caBundle": PEM})),
            "caBundle needs a url that begins with",
        ),
        (http(json!({"url": "https://a/b", "insecure": true, "caBundle": "x"})), "caBundle must begin with -----BEGIN"),
        (
            disks(template(json!({"source": {"http": {"url": "http://a/b", "insecure": true, "secret": "x"}}}))),
            "a password never travels in clear",
        ),
        (manifest("StoragePool", "p", json!({"dir": {"path": "images"}})), "path must be absolute"),
        (manifest("StoragePool", "p", json!({"dir": {"path": "/a/../b"}})), "no '.' or '..'"),
        (manifest("StoragePool", "p", json!({"dir": {"path": "/a/$(x)"}})), "path may hold letters"),
        (manifest("StoragePool", "p", json!({})), "spec.dir: Required"),
        (snapshot(json!({"virtualMachine": ""})), "spec.virtualMachine"),
        (snapshot(json!({"method": "Memory"})), "spec.method: Unsupported value"),
        (snapshot(json!({"disks": {}})), "exactly one of include or exclude must be set"),
        (
            snapshot(json!({"disks": {"include": ["a"], "exclude": ["b"]}})),
            "exactly one of include or exclude must be set",
        ),
        (snapshot(json!({"disks": {"include": []}})), "spec.disks.include"),
        (snapshot(json!({"disks": {"include": ["a", "a"]}})), "Duplicate value"),
        (manifest("Host", "h", json!({"overcommit": {"cpu": "0.5"}})), "cpu must be a decimal number of at least 1"),
    ];
    for (manifest, words) in table {
        let refusal = story.refusal(manifest.clone()).await.unwrap_or_else(|| panic!("accepted: {manifest}"));
        assert!(refusal.contains(words), "{manifest}\n{refusal}\nlacks: {words}");
    }
    let unknown = story.apply(vm(json!({"cores": 2}))).await.unwrap_err().to_string();
    assert!(unknown.contains("spec.cores"), "{unknown}");
    story.end().await;
}

#[tokio::test]
async fn what_is_fixed_at_creation_stays_so() {
    let story = Story::new("fixed").await;
    let template = json!({"spec": {"storagePool": "nowhere", "capacity": "5Gi"}});
    story
        .apply(vm(json!({"powerState": "Stopped", "disks": [{"name": "a", "volumeTemplate": template}]})))
        .await
        .unwrap();
    story.apply(volume(json!({"storagePool": "nowhere"}))).await.unwrap();
    for (change, words) in [
        (json!({"storagePool": "other"}), "storagePool cannot be changed"),
        (json!({"host": "node-a"}), "host cannot be changed"),
        (json!({"format": "Raw"}), "format cannot be changed"),
        (json!({"allocation": "Full"}), "allocation cannot be changed"),
        (json!({"capacity": "512Mi"}), "capacity may only grow"),
        (json!({"capacity": null}), "capacity is required"),
        (json!({"source": {"http": {"url": "http://a/b", "insecure": true}}}), "source cannot be changed"),
    ] {
        let patch = Patch::Merge(json!({"spec": change}));
        let refused = story.api::<crds::StorageVolume>().patch("disk", &PatchParams::default(), &patch).await;
        let refusal = refused.unwrap_err().to_string();
        assert!(refusal.contains(words), "{change}: {refusal}");
    }
    story.patch::<crds::StorageVolume>("disk", json!({"spec": {"capacity": "2Gi"}})).await;
    let larger = json!({"spec": {"storagePool": "nowhere", "capacity": "6Gi"}});
    let patch = Patch::Merge(json!({"spec": {"disks": [{"name": "a", "volumeTemplate": larger}]}}));
    let refused = story.api::<VirtualMachine>().patch("web", &PatchParams::default(), &patch).await;
    assert!(refused.unwrap_err().to_string().contains("volumeTemplate cannot be changed"));

    story.apply(snapshot(json!({"virtualMachine": "none"}))).await.unwrap();
    let change = async |change: Value| {
        let patch = Patch::Merge(json!({"spec": change}));
        story.api::<crds::Snapshot>().patch("before", &PatchParams::default(), &patch).await
    };
    for (wish, words) in [
        (json!({"virtualMachine": "other"}), "virtualMachine cannot be changed"),
        (json!({"method": "Internal"}), "method cannot be changed"),
        (json!({"disks": {"include": ["a"]}}), "disks cannot be changed"),
    ] {
        let refusal = change(wish.clone()).await.unwrap_err().to_string();
        assert!(refusal.contains(words), "{wish}: {refusal}");
    }
    change(json!({"deletionPolicy": "Retain"})).await.unwrap();

    let pool = Patch::Merge(json!({"spec": {"dir": {"path": "/var/lib/virtfleet/other"}}}));
    let pools = kube::Api::<crds::StoragePool>::all(story.client.clone());
    let refusal = pools.patch("fixed", &PatchParams::default(), &pool).await.unwrap_err().to_string();
    assert!(refusal.contains("dir cannot be changed"), "{refusal}");
    let shared = Patch::Merge(json!({"spec": {"shared": true}}));
    let refusal = pools.patch("fixed", &PatchParams::default(), &shared).await.unwrap_err().to_string();
    assert!(refusal.contains("shared cannot be changed"), "{refusal}");
    story.end().await;
}
