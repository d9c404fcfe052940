//! A template volume comes and goes with its machine; a volume that the user wrote stays.

use crds::conditions::{Type, find};
use crds::storage_volume::StorageVolume;
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn a_template_volume_goes_with_its_machine_and_a_written_one_stays() {
    let story = Story::new("template").await;
    story.apply(story.volume_manifest("kept", json!({"capacity": "8Mi", "format": "Raw"}))).await.unwrap();
    story.volume_is("kept", "False", "WaitForFirstConsumer").await;
    let template = json!({"spec": {"storagePool": "template", "capacity": "10Mi"}});
    let disks = json!([{"name": "data", "volumeTemplate": template}, {"name": "kept", "volume": "kept"}]);
    story.apply(story.bare("web", json!({"disks": disks}))).await.unwrap();
    let vm = story.vm_is("web", "True", "Running").await;
    let host = vm.status.unwrap().host.unwrap();

    let mut paths = Vec::new();
    for name in ["web-data", "kept"] {
        let volume = story.volume_is(name, "True", "Ready").await;
        let status = volume.status.unwrap();
        assert_eq!((status.host.as_deref(), status.used_by), (Some(host.as_str()), vec!["web".to_owned()]));
        assert_eq!(status.claimed_by.unwrap().name, "web");
        let path = story.outside(&host, &status.path.unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        paths.push(path);
    }
    // The order of disks in the manifest is not the order of targets.
    let targets: Vec<_> =
        story.vm("web").await.unwrap().status.unwrap().disks.into_iter().map(|d| (d.name, d.target)).collect();
    assert_eq!(targets, [("data".to_owned(), "vda".to_owned()), ("kept".into(), "vdb".into())]);

    story.delete::<VirtualMachine>("web").await;
    assert_eq!(story.domain(&host, &story.domain_name("web")), "absent");
    until("the end of the template volume", async || match story.volume("web-data").await {
        None => Ok(()),
        Some(volume) => Err(format!("{:?}", volume.status)),
    })
    .await;
    assert!(!paths[0].exists() && paths[1].exists());

    // Retain: the object goes, the file stays.
    story.delete::<StorageVolume>("kept").await;
    assert!(paths[1].exists());
    story.end().await;
}

#[tokio::test]
async fn a_disk_that_comes_back_with_another_template_says_that_its_volume_is_the_old_one() {
    let story = Story::new("retemplated").await;
    let disk = |capacity: &str| {
        let template = json!({"spec": {"storagePool": "retemplated", "capacity": capacity, "format": "Raw"}});
        json!({"spec": {"disks": [{"name": "data", "volumeTemplate": template}]}})
    };
    story.apply(story.bare("web", disk("1Mi")["spec"].clone())).await.unwrap();
    let host = story.vm_is("web", "True", "Running").await.status.unwrap().host.unwrap();
    let before = story.files(&host);
    for disks in [json!({"spec": {"disks": []}}), disk("2Mi")] {
        story.patch::<VirtualMachine>("web", disks).await;
    }
    until("word of it", async || {
        let status = story.vm("web").await.and_then(|vm| vm.status).unwrap_or_default();
        let told = find(&status.conditions, Type::VolumesReady).ok_or("none".to_owned())?;
        let says = told.reason == "TemplateDiffers" && told.message.contains("web-data was made otherwise: capacity");
        says.then_some(()).ok_or(format!("{told:?}"))
    })
    .await;
    assert_eq!(story.files(&host), before);
    story.end().await;
}
