//! A domain of the same name that is not ours is not touched.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
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
