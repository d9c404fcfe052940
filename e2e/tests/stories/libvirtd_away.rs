//! libvirtd is stopped while all that is asked of it is under way, and asked for more while it is away: that is told, no guest notices, and
//! afterwards all ends as it was asked for. `make outages` has it away for a minute.

use crds::virtual_machine::VirtualMachine;
use crds::{Snapshot, StorageVolume, quantity};
use e2e::story::{Story, length_of_absence, until};
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;

const HOST: &str = "node-a";
/// Machines to which something is done while they run, and one to which nothing is.
const RUNNING: [&str; 6] = ["attach", "grow", "snap", "merge", "gone", "still"];

#[tokio::test]
async fn all_that_was_asked_of_a_libvirtd_that_is_away_is_done_once_it_is_back() {
    let away = length_of_absence(Duration::from_secs(10));
    let story = Story::alone("away").await;
    for when in ["before", "meanwhile"] {
        prepare(&story, when).await;
    }
    let runs = || ["before", "meanwhile"].map(|when| RUNNING.map(|name| run(&story, name, when)));
    let first = runs();

    ask(&story, "before").await;
    let pid = story.pid("libvirtd-node-a");
    story.stop("libvirtd-node-a");
    ask(&story, "meanwhile").await;
    story.host_is(HOST, "False").await;
    for when in ["before", "meanwhile"] {
        story.vm_is(&format!("still-{when}"), "Unknown", "LibvirtUnreachable").await;
    }
    for name in ["attach", "grow", "merge", "gone"] {
        story.vm_is(&format!("{name}-meanwhile"), "Unknown", "LibvirtUnreachable").await;
    }
    story.snapshot_is("snap-meanwhile", "Unknown", "LibvirtUnreachable").await;
    // The length of the absence is the story; nothing is waited for.
    tokio::time::sleep(away).await;
    for object in ["gone-meanwhile", "merge-meanwhile", "snap-meanwhile"] {
        assert!(story.vm(object).await.is_some(), "{object} is done with before anybody could do it");
    }
    assert!(story.snapshot("merge-meanwhile").await.is_some());

    story.release("libvirtd-node-a");
    story.back("libvirtd-node-a", pid).await;
    for when in ["before", "meanwhile"] {
        ended(&story, when).await;
    }
    story.host_is(HOST, "True").await;
    for (first, when) in first.iter().zip(["before", "meanwhile"]) {
        for (name, id) in RUNNING.iter().zip(first).filter(|(name, _)| **name != "gone") {
            story.vm_is(&format!("{name}-{when}"), "True", "Running").await;
            assert_eq!(run(&story, name, when), *id, "{name}-{when} is the same run");
        }
    }
    story.end().await;
}

fn run(story: &Story, name: &str, when: &str) -> String {
    story.virsh(HOST, &["domid", &story.domain_name(&format!("{name}-{when}"))]).unwrap()
}

async fn prepare(story: &Story, when: &str) {
    let machine = |name: &str| format!("{name}-{when}");
    for name in RUNNING {
        story.apply(story.with_disks(&machine(name), &[("a", "Raw")], json!({}))).await.unwrap();
    }
    let more = json!({"capacity": "1Mi", "format": "Raw", "host": HOST});
    story.apply(story.volume_manifest(&machine("more"), more)).await.unwrap();
    story.volume_is(&machine("more"), "True", "Ready").await;
    for name in RUNNING {
        story.vm_is(&machine(name), "True", "Running").await;
    }
    for (name, value) in [("merge", 1), ("snap", 3)] {
        story.write(&machine(name), "a", value, "0", "4k").unwrap();
    }
    story.take(&machine("merge"), &machine("merge"), json!({})).await;
    story.write(&machine("merge"), "a", 2, "4k", "48M").unwrap();
}

/// Everything at once.
async fn ask(story: &Story, when: &str) {
    let object = |name: &str| format!("{name}-{when}");
    let image = story.image(if when == "before" { "slow" } else { "" }, "guest.qcow2");
    let import = json!({"host": HOST, "source": {"http": image}, "deletionPolicy": "Delete"});
    story.apply(story.volume_manifest(&object("import"), import)).await.unwrap();
    story.apply(story.with_disks(&object("start"), &[("a", "Raw")], json!({}))).await.unwrap();
    let root = story.with_disks(&object("attach"), &[("a", "Raw")], json!({}))["spec"]["disks"][0].clone();
    let disks = json!([root, {"name": "more", "volume": object("more")}]);
    story.patch::<VirtualMachine>(&object("attach"), json!({"spec": {"disks": disks}})).await;
    story.patch::<StorageVolume>(&format!("grow-{when}-a"), json!({"spec": {"capacity": "96Mi"}})).await;
    story.apply(story.snapshot_manifest(&object("snap"), &object("snap"), json!({}))).await.unwrap();
    story.api::<Snapshot>().delete(&object("merge"), &DeleteParams::default()).await.unwrap();
    story.api::<VirtualMachine>().delete(&object("gone"), &DeleteParams::default()).await.unwrap();
}

async fn ended(story: &Story, when: &str) {
    let object = |name: &str| format!("{name}-{when}");
    story.volume_is(&object("import"), "True", "Ready").await;
    story.vm_is(&object("start"), "True", "Running").await;
    until("the disk", async || {
        let status = story.vm(&object("attach")).await.and_then(|vm| vm.status).ok_or("gone".to_owned())?;
        let there = status.disks.iter().any(|disk| disk.name == "more");
        let sources = story.sources(&object("attach"));
        (there && sources.len() == 2).then_some(()).ok_or(format!("{sources:?} {:?}", status.conditions))
    })
    .await;
    until("the growth", async || {
        let volume = story.volume(&format!("grow-{when}-a")).await.and_then(|volume| volume.status);
        let capacity = volume.as_ref().and_then(|status| status.capacity.as_ref()).and_then(quantity::units);
        (capacity == Some(96 << 20)).then_some(()).ok_or(format!("{volume:?}"))
    })
    .await;
    story.snapshot_is(&object("snap"), "True", "Ready").await;
    assert_eq!(story.in_libvirt(&object("snap")), [object("snap")]);
    until("the end of the snapshot", async || {
        story.snapshot(&object("merge")).await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
    })
    .await;
    let merged = story.sources(&object("merge"));
    assert_eq!((merged.len(), story.in_libvirt(&object("merge"))), (1, Vec::new()));
    for (at, value) in [(0, 1), (4096, 2), ((48 << 20) + 4095, 2)] {
        assert_eq!(story.byte(&merged[0], at).unwrap(), value, "byte {at} of {}", merged[0]);
    }
    let gone = object("gone");
    until("the end of the machine", async || {
        story.vm(&gone).await.map_or(Ok(()), |vm| Err(format!("{:?}", vm.status)))
    })
    .await;
    assert_eq!(story.domain(HOST, &story.domain_name(&gone)), "absent");
    until("the end of its volume", async || {
        let left: Vec<_> = story.files(HOST).into_iter().filter(|file| file.contains(&gone)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
