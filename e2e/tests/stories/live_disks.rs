//! Disks come and go while the guest runs; what others did to its domain survives, what they did to our part is told and put back.

use crds::conditions::{Type, find};
use crds::virtual_machine::{Apply, VirtualMachine};
use e2e::story::{Story, until};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};

const MANY: usize = 10;

fn disks(story: &Story, count: usize) -> Value {
    let root = story.guest("web", json!({}))["spec"]["disks"][0].clone();
    let data = (0..count).map(|i| json!({"name": format!("data-{i}"), "volume": format!("data-{i}")}));
    std::iter::once(root).chain(data).collect()
}

async fn has_disks(story: &Story, count: usize) {
    until(&format!("{count} disks"), async || {
        let vm = story.vm("web").await.ok_or("gone")?;
        let status = vm.status.unwrap_or_default();
        let settled = find(&status.conditions, Type::Reconciling).is_none();
        let seen = status.disks.len();
        (seen == count && settled && status.observed_generation == vm.metadata.generation)
            .then_some(())
            .ok_or(format!("{seen} disks, {:?}, {:?}", status.conditions, status.pending_changes))
    })
    .await;
}

#[tokio::test]
async fn ten_disks_in_a_row_come_and_go_while_the_guest_runs() {
    let story = Story::new("hotplug").await;
    story.apply(story.guest("web", json!({}))).await.unwrap();
    let host = story.vm_is("web", "True", "Running").await.status.unwrap().host.unwrap();
    let domain = story.domain_name("web");
    story.console_says(&host, "web", "VIRTFLEET-GUEST-UP").await;
    let id = story.virsh(&host, &["domid", &domain]).unwrap();
    // Somebody gives the domain a disk of their own, by hand.
    let theirs = "/var/lib/virtfleet/theirs.raw";
    std::fs::write(story.outside(&host, theirs), vec![0; 1 << 20]).unwrap();
    story
        .virsh(&host, &["attach-disk", &domain, theirs, "vdz", "--targetbus", "virtio", "--live", "--config"])
        .unwrap();

    for i in 0..MANY {
        let format = if i % 2 == 0 { "Raw" } else { "Qcow2" };
        let spec = json!({"capacity": "1Mi", "format": format});
        story.apply(story.volume_manifest(&format!("data-{i}"), spec)).await.unwrap();
        story.patch::<VirtualMachine>("web", json!({"spec": {"disks": disks(&story, i + 1)}})).await;
    }
    has_disks(&story, MANY + 1).await;
    let seen = story.in_guest(&host, "web", "grep -c ' vd[a-z]$' /proc/partitions").await;
    assert_eq!(seen, (MANY + 2).to_string());
    story.in_guest(&host, "web", "echo kept | dd of=/dev/vdb conv=fsync").await;

    story.patch::<VirtualMachine>("web", json!({"spec": {"disks": disks(&story, 1)}})).await;
    has_disks(&story, 2).await;
    let seen = story.in_guest(&host, "web", "grep -c ' vd[a-z]$' /proc/partitions; dd if=/dev/vdb bs=4 count=1").await;
    assert_eq!(seen, "3\nkept");
    assert_eq!(story.virsh(&host, &["domid", &domain]).unwrap(), id, "it is the same run");
    assert!(story.virsh(&host, &["domblklist", &domain]).unwrap().contains(theirs), "what is theirs stays");
    // What was let go of is free for others.
    story.apply(story.bare("other", json!({"disks": [{"name": "data", "volume": "data-3"}]}))).await.unwrap();
    story.vm_is("other", "True", "Running").await;
    story.virsh(&host, &["detach-disk", &domain, "vdz", "--live", "--config"]).unwrap();
    story.end().await;
}

/// As `virsh edit` does.
fn edit(story: &Story, host: &str, domain: &str, (from, to): (&str, &str)) {
    let xml = story.virsh(host, &["dumpxml", "--inactive", domain]).unwrap();
    assert!(xml.contains(from), "{xml}");
    let file = story.outside(host, "/var/lib/virtfleet/edited.xml");
    std::fs::write(&file, xml.replace(from, to)).unwrap();
    story.virsh(host, &["define", &file.to_string_lossy()]).unwrap();
}

#[tokio::test]
async fn what_is_ours_in_a_running_domain_is_put_back_and_the_rest_survives() {
    let story = Story::new("drift").await;
    story.apply(story.volume_manifest("data", json!({"capacity": "1Mi"}))).await.unwrap();
    story.apply(story.bare("web", json!({"disks": [{"name": "data", "volume": "data"}]}))).await.unwrap();
    let host = story.vm_is("web", "True", "Running").await.status.unwrap().host.unwrap();
    let domain = story.domain_name("web");
    let id = story.virsh(&host, &["domid", &domain]).unwrap();

    story.virsh(&host, &["desc", &domain, "--config", "--live", "theirs"]).unwrap();
    edit(&story, &host, &domain, ("<memory unit='KiB'>32768<", "<memory unit='KiB'>65536<"));
    until("the memory's own size again", async || {
        let xml = story.virsh(&host, &["dumpxml", "--inactive", &domain]).unwrap();
        xml.contains("<memory unit='KiB'>32768</memory>").then_some(()).ok_or(xml)
    })
    .await;
    until("an Event that says so", async || {
        let events = story.api::<Event>().list(&ListParams::default()).await.unwrap();
        let mut told = events.items.iter().filter(|event| event.reason.as_deref() == Some("DriftCorrected"));
        let said = told.find(|event| event.message.as_deref().is_some_and(|words| words.contains("spec.memory.size")));
        said.map(|_| ()).ok_or("no Event")
    })
    .await;
    // Undefined under our hands: it would be lost with its next stop.
    story.virsh(&host, &["undefine", &domain]).unwrap();
    until("its definition", async || {
        let info = story.virsh(&host, &["dominfo", &domain]).unwrap();
        info.contains("Persistent:     yes").then_some(()).ok_or(info)
    })
    .await;
    assert_eq!(story.virsh(&host, &["desc", &domain]).unwrap(), "theirs");
    assert_eq!(story.virsh(&host, &["domid", &domain]).unwrap(), id, "it is the same run");
    story.end().await;
}

#[tokio::test]
async fn what_must_wait_for_a_restart_is_listed_with_both_sides() {
    let story = Story::new("pending").await;
    story.apply(story.bare("web", json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let change = json!({"spec": {"cpu": {"cores": 2, "model": "Maximum"}, "memory": {"size": "48Mi"}}});
    story.patch::<VirtualMachine>("web", change).await;
    let pending = until("what is pending", async || {
        let status = story.vm("web").await.and_then(|vm| vm.status).unwrap_or_default();
        let pending = status.pending_changes;
        if pending.is_empty() { Err("nothing") } else { Ok(pending) }
    })
    .await;
    let told: Vec<_> = pending.iter().map(|p| (p.path.as_str(), p.current.as_str(), p.desired.as_str())).collect();
    let wanted = [
        ("spec.cpu.cores", "1", "2"),
        ("spec.cpu.model", "HostModel", "Maximum"),
        ("spec.memory.size", "32Mi", "48Mi"),
    ];
    assert_eq!(told, wanted);
    assert!(pending.iter().all(|change| change.apply == Apply::Restart));
    story
        .patch::<VirtualMachine>("web", json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": "now"}}}))
        .await;
    until("nothing pending", async || {
        let status = story.vm("web").await.and_then(|vm| vm.status).unwrap_or_default();
        let cores = status.resources.map(|resources| resources.cores);
        (cores == Some(2) && status.pending_changes.is_empty())
            .then_some(())
            .ok_or(format!("{:?}", status.pending_changes))
    })
    .await;
    story.end().await;
}
