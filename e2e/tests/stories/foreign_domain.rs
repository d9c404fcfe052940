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
