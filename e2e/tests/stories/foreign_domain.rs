//! A domain of the same name that is not ours is not touched.

use crds::StorageVolume;
use crds::conditions::{Type, find};
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test]
async fn a_foreign_domain_of_the_name_is_a_conflict_and_stays_as_it_is() {
    let story = Story::new("foreign").await;
    let file = story.outside("node-a", "/var/lib/virtfleet/foreign.xml");
    std::fs::write(
        &file,
        "<domain type='qemu'><name>foreign.web</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>",
    )
    .unwrap();
    story.virsh("node-a", &["define", &file.to_string_lossy()]).unwrap();
    let before = story.virsh("node-a", &["dumpxml", "foreign.web"]).unwrap();

    story.apply(story.bare("web", json!({"placement": {"host": "node-a"}}))).await.unwrap();
    story.vm_is("web", "False", "Conflict").await;
    until("it among the unmanaged domains", async || {
        let unmanaged =
            story.host("node-a").await.and_then(|host| host.status).and_then(|status| status.unmanaged_domains);
        let named = unmanaged.as_ref().is_some_and(|all| all.domains.iter().any(|d| d.name == "foreign.web"));
        named.then_some(()).ok_or(format!("{unmanaged:?}"))
    })
    .await;
    assert_eq!(story.virsh("node-a", &["dumpxml", "foreign.web"]).unwrap(), before);

    // Its object goes without it.
    story.delete::<VirtualMachine>("web").await;
    assert_eq!(story.virsh("node-a", &["dumpxml", "foreign.web"]).unwrap(), before);
    story.virsh("node-a", &["undefine", "foreign.web"]).unwrap();
    std::fs::remove_file(file).unwrap();
    story.end().await;
}

#[tokio::test]
async fn a_domain_of_another_cluster_is_foreign() {
    let story = Story::new("alien").await;
    let uuid = "0a1b2c3d-4e5f-4789-abcd-ef0123456789";
    let mark = format!(
        "<vf:owner xmlns:vf='https://virtfleet.dev/ns/domain/1' cluster='another' namespace='alien' name='web' uid='{uuid}' domain='{uuid}' run='stopped'/>"
    );
    let file = story.outside("node-a", "/var/lib/virtfleet/alien.xml");
    let xml = format!(
        "<domain type='qemu'><name>alien.web</name><uuid>{uuid}</uuid><metadata>{mark}</metadata><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>"
    );
    std::fs::write(&file, xml).unwrap();
    story.virsh("node-a", &["define", &file.to_string_lossy()]).unwrap();
    let before = story.virsh("node-a", &["dumpxml", "alien.web"]).unwrap();
    story.apply(story.bare("web", json!({"placement": {"host": "node-a"}}))).await.unwrap();
    let conditions = story.vm_is("web", "False", "Conflict").await.status.unwrap().conditions;
    let told = &find(&conditions, Type::Ready).unwrap().message;
    assert!(told.contains("machine alien/web of cluster another"), "{told}");
    story.delete::<VirtualMachine>("web").await;
    assert_eq!(story.virsh("node-a", &["dumpxml", "alien.web"]).unwrap(), before);
    story.virsh("node-a", &["undefine", "alien.web"]).unwrap();
    std::fs::remove_file(file).unwrap();
    story.end().await;
}

#[tokio::test]
async fn a_clone_that_carries_the_mark_along_is_nobodys() {
    let story = Story::new("cloned").await;
    story.apply(story.bare("web", json!({"placement": {"host": "node-a"}}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let xml = story.virsh("node-a", &["dumpxml", "--inactive", "cloned.web"]).unwrap();
    let uuid = story.virsh("node-a", &["domuuid", "cloned.web"]).unwrap();
    let clone =
        xml.replace("<name>cloned.web</name>", "<name>clone</name>").replace(&format!("<uuid>{uuid}</uuid>"), "");
    assert!(clone.contains("virtfleet.dev/ns/domain"));
    let file = story.outside("node-a", "/var/lib/virtfleet/clone.xml");
    std::fs::write(&file, clone).unwrap();
    story.virsh("node-a", &["define", &file.to_string_lossy()]).unwrap();
    until("the clone among the unmanaged domains", async || {
        let status = story.host("node-a").await.and_then(|host| host.status).unwrap_or_default();
        let unmanaged = status.unmanaged_domains.unwrap_or_default();
        unmanaged.domains.iter().any(|d| d.name == "clone").then_some(()).ok_or(format!("{unmanaged:?}"))
    })
    .await;
    story.delete::<VirtualMachine>("web").await;
    assert_eq!(story.domain("node-a", "clone"), "shut off");
    story.virsh("node-a", &["undefine", "clone"]).unwrap();
    std::fs::remove_file(file).unwrap();
    story.end().await;
}

#[tokio::test]
async fn a_volume_that_a_foreign_domain_names_in_its_own_way_is_not_removed() {
    let story = Story::new("named").await;
    let spec = json!({"capacity": "1Mi", "host": "node-a", "deletionPolicy": "Delete"});
    story.apply(story.volume_manifest("data", spec)).await.unwrap();
    let path = story.volume_is("data", "True", "Ready").await.status.unwrap().path.unwrap();
    let name = path.rsplit('/').next().unwrap();
    let disk = format!(
        "<devices><disk type='volume'><driver name='qemu' type='qcow2'/><source pool='named' volume='{name}'/><target dev='vda'/></disk></devices>"
    );
    let file = story.outside("node-a", "/var/lib/virtfleet/named.xml");
    let head = "<domain type='qemu'><name>theirs</name><memory unit='MiB'>32</memory><os><type>hvm</type></os>";
    std::fs::write(&file, format!("{head}{disk}</domain>")).unwrap();
    story.virsh("node-a", &["define", &file.to_string_lossy()]).unwrap();
    story.api::<StorageVolume>().delete("data", &DeleteParams::default()).await.unwrap();
    until("the volume's DeletionBlocked", async || {
        let status = story.volume("data").await.and_then(|volume| volume.status).unwrap_or_default();
        let blocked = find(&status.conditions, Type::DeletionBlocked).filter(|c| c.message.contains("theirs"));
        blocked.map(|_| ()).ok_or(format!("{:?}", status.conditions))
    })
    .await;
    assert!(story.outside("node-a", &path).exists());
    story.virsh("node-a", &["undefine", "theirs"]).unwrap();
    until("the end of the volume", async || {
        story.volume("data").await.map_or(Ok(()), |v| Err(format!("{:?}", v.status)))
    })
    .await;
    assert!(!story.outside("node-a", &path).exists());
    std::fs::remove_file(file).unwrap();
    story.end().await;
}
