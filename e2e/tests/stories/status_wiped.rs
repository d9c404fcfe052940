//! A machine whose status was lost is found where it runs and not placed again.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::{Patch, PatchParams};
use serde_json::json;

#[tokio::test]
async fn a_machine_without_status_is_found_where_it_runs() {
    let story = Story::new("wiped").await;
    story.apply(story.bare("web", json!({"placement": {"host": "node-b"}}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let domain = story.domain_name("web");
    let id = story.virsh("node-b", &["domid", &domain]).unwrap();
    until("it in the host's report", async || {
        let domains =
            story.host("node-b").await.and_then(|host| host.status).map(|status| status.domains).unwrap_or_default();
        domains.iter().any(|d| d.namespace == "wiped").then_some(()).ok_or(format!("{domains:?}"))
    })
    .await;
    // The manifest no longer says where; only the host's own report does.
    story.patch::<VirtualMachine>("web", json!({"spec": {"placement": null}})).await;
    let api = story.api::<VirtualMachine>();
    let wipe = json!({"status": {"host": null, "domain": null, "phase": null, "conditions": null, "startedAt": null}});
    api.patch_status("web", &PatchParams::default(), &Patch::Merge(wipe)).await.unwrap();
    let vm = story.vm_is("web", "True", "Running").await;
    assert_eq!(vm.status.unwrap().host.as_deref(), Some("node-b"));
    assert_eq!(story.virsh("node-b", &["domid", &domain]).unwrap(), id);
    assert_eq!(story.domain("node-a", &domain), "absent");
    story.end().await;
}
