//! The agent is killed with -9, and libvirtd restarted, while disks come and go, volumes grow and machines are torn down: all ends as it was asked for.

use crds::virtual_machine::VirtualMachine;
use crds::{StorageVolume, quantity};
use e2e::story::{Story, until};
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;

const HOST: &str = "node-a";

#[tokio::test]
async fn an_agent_that_is_killed_while_a_machine_changes_leaves_nothing_undone() {
    let story = Story::alone("changing").await;
    // Later and later: each kill meets another step.
    for (round, pause) in [0u64, 20, 45, 80, 120, 170, 240, 350].into_iter().enumerate() {
        round_of(&story, round, pause, async |pause| interrupt(&story, "agent-node-a", pause, Story::kill).await).await;
    }
    story.end().await;
}

#[tokio::test]
async fn a_libvirtd_that_is_restarted_while_a_machine_changes_leaves_nothing_undone() {
    // Not with -9: libvirt 11.3 that is killed in the middle of a start believes for ever in a domain whose QEMU is gone.
    let story = Story::alone("changed").await;
    for (round, pause) in [0u64, 40, 100, 200, 400].into_iter().enumerate() {
        let restart = async |pause| interrupt(&story, "libvirtd-node-a", pause, Story::end_program).await;
        round_of(&story, round, pause, restart).await;
    }
    story.end().await;
}

async fn round_of(story: &Story, round: usize, pause: u64, interrupt: impl AsyncFn(u64)) {
    let (name, more) = (format!("vm-{round}"), format!("more-{round}"));
    let template = json!({"spec": {"storagePool": story.namespace, "capacity": "1Mi"}});
    let root = json!({"name": "root", "volumeTemplate": template});
    let spec = json!({"disks": [root], "placement": {"host": HOST}});
    story.apply(story.bare(&name, spec)).await.unwrap();
    story.apply(story.volume_manifest(&more, json!({"capacity": "1Mi", "format": "Raw"}))).await.unwrap();
    interrupt(pause).await;
    story.vm_is(&name, "True", "Running").await;
    let domain = story.domain_name(&name);
    let run = async || until("its number", async || story.virsh(HOST, &["domid", &domain])).await;
    let first = run().await;

    // A disk, which grows as it comes.
    let both = json!({"spec": {"disks": [root, {"name": "more", "volume": more}]}});
    story.patch::<VirtualMachine>(&name, both).await;
    story.patch::<StorageVolume>(&more, json!({"spec": {"capacity": "3Mi"}})).await;
    interrupt(pause).await;
    until("the disk, grown", async || {
        let status = story.vm(&name).await.and_then(|vm| vm.status).ok_or("gone".to_owned())?;
        let volume = story.volume(&more).await.and_then(|volume| volume.status).ok_or("gone".to_owned())?;
        let capacity = volume.capacity.as_ref().and_then(quantity::units);
        let there = status.disks.iter().any(|disk| disk.name == "more");
        (there && capacity == Some(3 << 20)).then_some(()).ok_or(format!("{:?} {volume:?}", status.conditions))
    })
    .await;
    story.vm_is(&name, "True", "Running").await;
    assert_eq!(run().await, first, "it is the same run");

    story.api::<VirtualMachine>().delete(&name, &DeleteParams::default()).await.unwrap();
    interrupt(pause).await;
    until("the end of the machine", async || {
        story.vm(&name).await.map_or(Ok(()), |vm| Err(format!("{:?}", vm.status)))
    })
    .await;
    until("the end of its domain", async || {
        let all = story.virsh(HOST, &["list", "--all", "--name"])?;
        if all.contains(&domain) { Err::<(), e2e::Error>(all.into()) } else { Ok(()) }
    })
    .await;
    until("the end of its own volume, and of no other", async || {
        let gone = story.volume(&format!("{name}-root")).await.is_none();
        let kept = story.volume(&more).await.is_some();
        (gone && kept).then_some(()).ok_or(format!("gone {gone}, kept {kept}"))
    })
    .await;
}

async fn interrupt(story: &Story, victim: &str, milliseconds: u64, act: impl Fn(&Story, &str)) {
    let pid = story.pid(victim);
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    act(story, victim);
    story.back(victim, pid).await;
}
