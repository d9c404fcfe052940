//! A machine that is let go runs on, unmarked, with its disk; nothing of ours touches it afterwards.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn an_orphaned_machine_runs_on_with_its_disk() {
    let story = Story::new("orphaned").await;
    let template = json!({"spec": {"storagePool": "orphaned", "capacity": "1Mi"}});
    let spec = json!({"disks": [{"name": "d", "volumeTemplate": template}], "deletionPolicy": "Orphan"});
    story.apply(story.bare("web", spec)).await.unwrap();
    let host = story.vm_is("web", "True", "Running").await.status.unwrap().host.unwrap();
    let domain = story.domain_name("web");
    let file = story.outside(&host, &story.volume("web-d").await.unwrap().status.unwrap().path.unwrap());

    story.delete::<VirtualMachine>("web").await;
    until("the end of the volume's object", async || {
        story.volume("web-d").await.map_or(Ok(()), |v| Err(format!("{:?}", v.status)))
    })
    .await;
    assert_eq!(story.domain(&host, &domain), "running");
    assert!(!story.virsh(&host, &["dumpxml", &domain]).unwrap().contains("virtfleet.dev/ns/domain"), "the mark is off");
    assert!(file.exists());
    until("it among the unmanaged", async || {
        let status = story.host(&host).await.and_then(|host| host.status).unwrap_or_default();
        let unmanaged = status.unmanaged_domains.unwrap_or_default();
        unmanaged.domains.iter().any(|d| d.name == domain).then_some(()).ok_or(format!("{unmanaged:?}"))
    })
    .await;
    story.virsh(&host, &["destroy", &domain]).unwrap();
    story.virsh(&host, &["undefine", &domain]).unwrap();
    std::fs::remove_file(file).unwrap();
    story.end().await;
}
