//! The controller's copies of secrets: each host reads its own alone, and none outlasts what it is for.

use crds::StorageVolume;
use e2e::secure_images::{Authority, SecureImages};
use e2e::story::{Story, client, until};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use plan::names::{host_namespace, import_secret};
use serde_json::{Value, json};

/// A volume whose image is as slow to come as it must be to look at its import.
async fn importing(story: &Story, name: &str, server: &SecureImages, authority: &Authority) -> StorageVolume {
    let more = json!({"secret": "pass", "caBundle": authority.certificate});
    let url = format!("{}/stalled/guest.qcow2", server.url);
    story.apply(story.secret_volume(name, "node-a", &url, more)).await.unwrap();
    story.volume_is(name, "False", "Importing").await
}

#[tokio::test]
async fn a_copy_is_its_hosts_alone_and_goes_with_its_volume() {
    let story = Story::new("copies").await;
    let authority = Authority::new().unwrap();
    let accepted = ["Bearer of-news".to_owned()];
    let server = SecureImages::start(&story.run, &authority, &accepted, "").await.unwrap();
    story.secret("pass", json!({"token": "of-news"})).await;
    let volume = importing(&story, "goes", &server, &authority).await;
    assert!(story.secret_copy("node-a", &volume).await.is_some(), "it is made before the host begins");
    let (place, name) = (host_namespace("node-a"), import_secret(&volume.uid().unwrap()));
    let get = async |who: &str, namespace: &str, name: &str| {
        Api::<Secret>::namespaced(client(&story.run, who).await.unwrap(), namespace).get_opt(name).await
    };
    assert!(get("node-a", &place, &name).await.unwrap().is_some());
    for (who, namespace, name) in [("node-b", place.as_str(), name.as_str()), ("node-a", "copies", "pass")] {
        let refused = get(who, namespace, name).await.unwrap_err().to_string();
        assert!(refused.contains("forbidden"), "{who} {namespace}/{name}: {refused}");
    }

    // Deleted in the midst of its import.
    story.delete::<StorageVolume>("goes").await;
    assert!(story.secret_copy("node-a", &volume).await.is_none(), "it goes before its volume");
    assert_eq!(story.files("node-a"), Vec::<String>::new());

    // Taken back by its user in the midst of the import: from the next look on the host has nothing of it.
    let volume = importing(&story, "taken", &server, &authority).await;
    assert!(story.secret_copy("node-a", &volume).await.is_some());
    story.delete::<Secret>("pass").await;
    story.patch::<StorageVolume>("taken", json!({"metadata": {"labels": {"look": "again"}}})).await;
    story.no_secret_copy("node-a", &volume).await;
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
    let metadata = json!({"name": "account", "annotations": {"kubernetes.io/service-account.name": "default"}});
    let kind = "kubernetes.io/service-account-token";
    story.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind})).await.unwrap();
    let secrets = story.api::<Secret>();
    until("the account's token", async || {
        let data = secrets.get("account").await.unwrap().data.unwrap_or_default();
        data.contains_key("token").then_some(()).ok_or("not yet")
    })
    .await;
    let more = json!({"secret": "account", "caBundle": authority.certificate});
    let url = format!("{}/plain/guest.qcow2", server.url);
    story.apply(story.secret_volume("disk", "node-a", &url, more)).await.unwrap();
    let volume = story.volume_is("disk", "False", "SecretMissing").await;
    assert!(story.secret_copy("node-a", &volume).await.is_none());
    assert_eq!(server.heard(), []);
    story.end().await;
}
