//! The CRDs are deleted while guests run: all live on, and reinstalled CRDs and objects take them back.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, manifest, until};
use e2e::{HOSTS, install};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

const KINDS: [&str; 5] = ["snapshots", "virtualmachines", "storagevolumes", "storagepools", "hosts"];

#[tokio::test]
async fn guests_outlive_their_crds_and_are_taken_back() {
    let story = Story::alone("outlive").await;
    // One disk of the machine's own, one of a volume that a user wrote.
    let root = story.guest("web", json!({}))["spec"]["disks"][0].clone();
    let machine = story.guest("web", json!({"disks": [root, {"name": "data", "volume": "data"}]}));
    let data = story.volume_manifest("data", json!({"capacity": "1Mi"}));
    story.apply(data.clone()).await.unwrap();
    story.apply(machine.clone()).await.unwrap();
    let host = story.vm_is("web", "True", "Running").await.status.unwrap().host.unwrap();
    story.console_says(&host, "web", "VIRTFLEET-GUEST-UP boot=1").await;
    let domain = story.domain_name("web");
    let id = story.virsh(&host, &["domid", &domain]).unwrap();
    story.take("before", "web", json!({})).await;
    let overlay = disk(&story, &host);
    let file = story.volume("web-root").await.unwrap().status.unwrap().path.unwrap();
    let file_of_data = story.volume("data").await.unwrap().status.unwrap().path.unwrap();
    story.in_guest(&host, "web", "echo written | dd of=/dev/vdb conv=fsync").await;

    // An image that cannot come, behind a password.
    story.secret("login", json!({"username": "me", "password": "word"})).await;
    let nowhere = format!("https://{}:1/guest.qcow2", story.run.address());
    story.apply(story.secret_volume("far", "node-a", &nowhere, json!({"secret": "login"}))).await.unwrap();
    let far = story.volume_is("far", "False", "ImportFailed").await;

    let definitions = Api::<CustomResourceDefinition>::all(story.client.clone());
    for kind in KINDS {
        let name = format!("{kind}.virtfleet.dev");
        let refused = definitions.delete(&name, &DeleteParams::default()).await.unwrap_err().to_string();
        assert!(refused.contains("virtfleet.dev/allow-deletion=true"), "{refused}");
    }
    for kind in KINDS {
        let name = format!("{kind}.virtfleet.dev");
        let allow = json!({"metadata": {"annotations": {"virtfleet.dev/allow-deletion": "true"}}});
        definitions.patch(&name, &PatchParams::default(), &Patch::Merge(allow)).await.unwrap();
        definitions.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    for kind in KINDS {
        let name = format!("{kind}.virtfleet.dev");
        until(&format!("the end of {name}"), async || match definitions.get_opt(&name).await.unwrap() {
            None => Ok(()),
            Some(definition) => Err(format!("{:?}", definition.status.map(|s| s.conditions))),
        })
        .await;
    }
    assert_eq!(story.virsh(&host, &["domid", &domain]).unwrap(), id, "it runs on");
    assert!(story.outside(&host, &file).exists() && overlay != file, "its disk is there");
    let snapshots = || story.virsh(&host, &["snapshot-list", "--name", &domain]).unwrap();
    assert_eq!(snapshots(), "before");
    assert!(story.secret_copy("node-a", &far).await.is_some(), "nothing is taken from a host");

    install::chart(&story.run, "virtfleet-crds", &[]).unwrap();
    for kind in KINDS {
        let name = format!("{kind}.virtfleet.dev");
        until(&format!("{name} established"), async || {
            let definition = definitions.get_opt(&name).await.unwrap();
            let conditions = definition.and_then(|d| d.status).and_then(|s| s.conditions).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(()).ok_or("not yet")
        })
        .await;
    }
    // The machine first: it must not be placed before the hosts have told what they have.
    until("the machine's manifest again", async || story.apply(machine.clone()).await.map(drop)).await;
    story.apply(data).await.unwrap();
    let pool = manifest("StoragePool", "outlive", json!({"dir": {"path": "/var/lib/virtfleet/outlive"}}));
    story.apply(pool).await.unwrap();
    for host in HOSTS {
        story.apply(install::host_manifest(host)).await.unwrap();
    }
    // Its volume is not made again.
    story.no_secret_copy("node-a", &far).await;
    let vm = story.vm_is("web", "True", "Running").await;
    assert_eq!(vm.status.as_ref().unwrap().host.as_deref(), Some(host.as_str()));
    assert_eq!(story.virsh(&host, &["domid", &domain]).unwrap(), id, "it is the same run");
    let volume = story.volume_is("web-root", "True", "Ready").await;
    assert_eq!(volume.status.unwrap().path.as_deref(), Some(file.as_str()), "it took its file back");
    let volume = story.volume_is("data", "True", "Ready").await;
    assert_eq!(volume.status.unwrap().path.as_deref(), Some(file_of_data.as_str()), "it took its file back");
    assert_eq!(story.console(&host, "web").matches("VIRTFLEET-GUEST-UP").count(), 1);

    // The snapshot's object takes its snapshot back as it was, and is one as any other.
    let taken = |snapshot: &crds::Snapshot| snapshot.status.clone().unwrap_or_default().created_at;
    let again = story.take("before", "web", json!({})).await;
    assert!(taken(&again) < again.metadata.creation_timestamp, "{:?}", again.status);
    assert_eq!((snapshots(), disk(&story, &host)), ("before".into(), overlay));
    story.delete::<crds::Snapshot>("before").await;
    assert_eq!((snapshots(), disk(&story, &host)), (String::new(), file.clone()));

    // From here on it is a machine as any other, and its disks hold what was written to them.
    story
        .patch::<VirtualMachine>("web", json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": "now"}}}))
        .await;
    story.console_says(&host, "web", "VIRTFLEET-GUEST-UP boot=2").await;
    assert_eq!(story.in_guest(&host, "web", "dd if=/dev/vdb bs=7 count=1").await, "written");
    let domains =
        async || story.host(&host).await.and_then(|host| host.status).map(|status| status.domains).unwrap_or_default();
    let uid = vm.metadata.uid.unwrap();
    until("the new mark", async || domains().await.iter().any(|d| d.uid == uid).then_some(()).ok_or("still the old"))
        .await;
    story.delete::<VirtualMachine>("web").await;
    assert_eq!(story.domain(&host, &domain), "absent");
    story.end().await;
}

/// The file that the machine's disk is on.
fn disk(story: &Story, host: &str) -> String {
    let list = story.virsh(host, &["domblklist", &story.domain_name("web")]).unwrap();
    list.split_whitespace().nth(1).unwrap().to_owned()
}
