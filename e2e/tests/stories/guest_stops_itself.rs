//! A guest that shuts itself down, under each restartPolicy; it boots a kernel of volumes.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::json;

#[tokio::test]
async fn a_guest_that_shuts_itself_down_is_treated_as_its_policy_says() {
    let story = Story::new("policy").await;
    // In a shared pool a kernel serves the machines of every host.
    let shared = json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "StoragePool", "metadata": {"name": "policy-shared"},
        "spec": {"dir": {"path": "/srv/shared/policy"}, "shared": true}});
    story.apply(shared).await.unwrap();
    for (name, file) in [("kernel", "vmlinuz"), ("initrd", "initrd.gz")] {
        let source = json!({"http": story.image("", file)});
        let spec = json!({"storagePool": "policy-shared", "host": "node-a", "format": "Raw", "source": source, "deletionPolicy": "Delete"});
        story.apply(story.volume_manifest(name, spec)).await.unwrap();
    }
    let boot = json!({"kernel": {"volume": "kernel"}, "initrd": {"volume": "initrd"}, "commandLine": "console=ttyS0 quiet no_timer_check virtfleet.off-after=2"});
    let spec = |policy: &str| json!({"memory": {"size": "192Mi"}, "kernelBoot": boot, "restartPolicy": policy});
    for (name, policy) in [("always", "Always"), ("onfailure", "OnFailure"), ("never", "Never")] {
        story.apply(story.bare(name, spec(policy))).await.unwrap();
    }
    for name in ["onfailure", "never"] {
        let vm = story.vm_is(name, "True", "StoppedByGuest").await;
        let host = vm.status.unwrap().host.unwrap();
        let domain = story.domain_name(name);
        assert_eq!(story.virsh(&host, &["domstate", "--reason", &domain]).unwrap(), "shut off (shutdown)");
        until("autostart off", async || {
            let info = story.virsh(&host, &["dominfo", &domain]).unwrap();
            info.contains("Autostart:      disable").then_some(()).ok_or(info)
        })
        .await;
    }
    let host = story.vm("always").await.unwrap().status.unwrap().host.unwrap();
    until("the third boot under Always", async || {
        let boots = story.console(&host, "always").matches("VIRTFLEET-GUEST-UP").count();
        (boots >= 3).then_some(()).ok_or(format!("{boots} boots"))
    })
    .await;
    // One that was left off comes back when it is asked to.
    story
        .patch::<VirtualMachine>("never", json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": "1"}}}))
        .await;
    let host = story.vm("never").await.unwrap().status.unwrap().host.unwrap();
    until("the second boot under Never", async || {
        let boots = story.console(&host, "never").matches("VIRTFLEET-GUEST-UP").count();
        (boots >= 2).then_some(()).ok_or(format!("{boots} boots"))
    })
    .await;
    let client = story.client.clone();
    story.end().await;
    let pools = kube::Api::<crds::StoragePool>::all(client);
    pools.delete("policy-shared", &kube::api::DeleteParams::default()).await.unwrap();
    until("the end of the shared pool", async || {
        pools.get_opt("policy-shared").await.unwrap().map_or(Ok(()), |p| Err(format!("{:?}", p.status)))
    })
    .await;
}
