//! The controller is killed while it places: every machine comes up, once, and none without room.

use crds::virtual_machine::VirtualMachine;
use e2e::story::Story;
use kube::api::ListParams;
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn a_controller_that_is_killed_places_every_machine_once() {
    let story = Story::alone("placing").await;
    for round in 0..4 {
        for name in ["x", "y", "z"] {
            let template = json!({"spec": {"storagePool": "placing", "capacity": "1Mi"}});
            let spec = json!({"disks": [{"name": "d", "volumeTemplate": template}], "powerState": "Stopped"});
            story.apply(story.bare(&format!("{name}{round}"), spec)).await.unwrap();
        }
        let pid = story.pid("controller");
        story.kill("controller");
        story.back("controller", pid).await;
    }
    for round in 0..4 {
        for name in ["x", "y", "z"] {
            story.vm_is(&format!("{name}{round}"), "True", "Stopped").await;
        }
    }
    let all = story.api::<VirtualMachine>().list(&ListParams::default()).await.unwrap();
    let mut seen = BTreeSet::new();
    for host in e2e::HOSTS {
        for domain in
            story.virsh(host, &["list", "--all", "--name"]).unwrap().lines().filter(|name| name.starts_with("placing."))
        {
            assert!(seen.insert(domain.to_owned()), "{domain} is on two hosts");
        }
    }
    assert_eq!((all.items.len(), seen.len()), (12, 12));
    story.end().await;
}
