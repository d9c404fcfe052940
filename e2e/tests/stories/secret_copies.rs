//! The controller's copies of secrets: each host reads its own alone, and none outlasts what it is for.

use crds::StorageVolume;
use e2e::secure_images::{Authority, SecureImages};
use e2e::story::{Story, client, until};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use plan::names::{host_namespace, import_secret};
use serde_json::{Value, json};

async fn secret(story: &Story, name: &str, kind: &str, data: Value) {
    let metadata = json!({"name": name, "annotations": {"kubernetes.io/service-account.name": "default"}});
    let manifest =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": data});
    story.apply(manifest).await.unwrap();
}

/// A volume whose image is as slow to come as it must be to look at its import.
async fn importing(story: &Story, name: &str, server: &SecureImages, authority: &Authority) -> StorageVolume {
    let mut http = story.image("", "guest.qcow2");
    http["url"] = json!(format!("{}/stalled/guest.qcow2", server.url));
    http["secret"] = json!("pass");
    http["caBundle"] = json!(authority.certificate);
    story.apply(story.volume_manifest(name, json!({"host": "node-a", "source": {"http": http}}))).await.unwrap();
    story.volume_is(name, "False", "Importing").await
}

#[tokio::test]
async fn a_copy_is_its_hosts_alone_and_goes_with_its_volume() {
    let story = Story::new("copies").await;
    let authority = Authority::new().unwrap();
    let accepted = ["Bearer of-news".to_owned()];
    let server = SecureImages::start(&story.run, &authority, &accepted, "").await.unwrap();
    secret(&story, "pass", "Opaque", json!({"token": "of-news"})).await;
    let volume = importing(&story, "goes", &server, &authority).await;
    let name = import_secret(&volume.uid().unwrap());
    let place = host_namespace("node-a");
    let get = async |who: &str, namespace: &str, name: &str| {
        Api::<Secret>::namespaced(client(&story.run, who).await.unwrap(), namespace).get_opt(name).await
    };
    let there = async || get("admin", &place, &name).await.unwrap().is_some();
    assert!(there().await, "it is made before the host begins");
    assert!(get("node-a", &place, &name).await.unwrap().is_some());
    for (who, namespace, name) in [("node-b", place.as_str(), name.as_str()), ("node-a", "copies", "pass")] {
        let refused = get(who, namespace, name).await.unwrap_err().to_string();
        assert!(refused.contains("forbidden"), "{who} {namespace}/{name}: {refused}");
    }

    // Deleted in the midst of its import.
    story.delete::<StorageVolume>("goes").await;
    assert!(!there().await, "it goes before its volume");
    assert_eq!(story.files("node-a"), Vec::<String>::new());

    // Taken back by its user in the midst of the import: the host keeps nothing.
    let volume = importing(&story, "taken", &server, &authority).await;
    let name = import_secret(&volume.uid().unwrap());
    let there = async || get("admin", &place, &name).await.unwrap().is_some();
    assert!(there().await);
    story.delete::<Secret>("pass").await;
    story.patch::<StorageVolume>("taken", json!({"metadata": {"labels": {"look": "again"}}})).await;
    until("the end of the copy", async || if there().await { Err("it is there") } else { Ok(()) }).await;
    story.end().await;
}

#[tokio::test]
async fn a_copy_of_no_volume_is_swept_and_what_is_not_ours_stays() {
    let story = Story::alone("swept").await;
    let copies = Api::<Secret>::namespaced(story.client.clone(), &host_namespace("node-a"));
    let make = async |name: &str, labels: Value| {
        let metadata = json!({"name": name, "labels": labels});
        let secret: Secret = serde_json::from_value(json!({"metadata": metadata, "type": "Opaque"})).unwrap();
        copies.create(&PostParams::default(), &secret).await.unwrap();
    };
    let stale = import_secret("00000000-0000-4000-8000-000000000000");
    make(&stale, json!({"virtfleet.dev/copy-for": "StorageVolume"})).await;
    make("swept-foreign", json!({})).await;
    // The controller looks when it begins.
    let pid = story.pid("controller");
    story.kill("controller");
    story.back("controller", pid).await;
    until("the end of the stale copy", async || match copies.get_opt(&stale).await.unwrap() {
        None => Ok(()),
        Some(_) => Err("it is there"),
    })
    .await;
    copies.delete("swept-foreign", &DeleteParams::default()).await.unwrap();
    story.end().await;
}

#[tokio::test]
async fn what_was_made_for_other_ends_is_sent_to_no_server() {
    let story = Story::new("otherends").await;
    let authority = Authority::new().unwrap();
    let server = SecureImages::start(&story.run, &authority, &[], "").await.unwrap();
    secret(&story, "account", "kubernetes.io/service-account-token", json!({})).await;
    let secrets = story.api::<Secret>();
    until("the account's token", async || {
        let data = secrets.get("account").await.unwrap().data.unwrap_or_default();
        data.contains_key("token").then_some(()).ok_or("not yet")
    })
    .await;
    let mut http = story.image("", "guest.qcow2");
    http["url"] = json!(format!("{}/plain/guest.qcow2", server.url));
    http["secret"] = json!("account");
    http["caBundle"] = json!(authority.certificate);
    story.apply(story.volume_manifest("disk", json!({"host": "node-a", "source": {"http": http}}))).await.unwrap();
    let volume = story.volume_is("disk", "False", "SecretMissing").await;
    let copies = Api::<Secret>::namespaced(story.client.clone(), &host_namespace("node-a"));
    assert!(copies.get_opt(&import_secret(&volume.uid().unwrap())).await.unwrap().is_none());
    assert_eq!(server.heard(), []);
    story.end().await;
}
