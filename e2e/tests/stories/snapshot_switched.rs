//! libvirtd was killed in the middle of taking a snapshot: what was done is found, written down, and nothing that the guest wrote is lost. The
//! moment is too short to be met by killing, so the stories bring about by hand what it leaves.

use crds::Snapshot;
use crds::conditions::{Type, find};
use crds::snapshot::SnapshotPower;
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

const HOST: &str = "node-a";
const DISKS: [&str; 2] = ["a", "b"];

/// A machine that wrote, a snapshot of it that nobody takes yet, and the overlays that the agent would have made.
async fn begun(story: &Story, state: &str) -> Vec<(String, String)> {
    story.apply(story.with_disks("web", &DISKS.map(|disk| (disk, "Raw")), json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    for disk in DISKS {
        story.write("web", disk, 1, "0", "4k").unwrap();
    }
    story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": state}})).await;
    story.vm_is("web", "True", state).await;
    story.hold("agent-node-a");
    let snapshot = story.apply(story.snapshot_manifest("s", "web", json!({}))).await.unwrap();
    let word = format!("s-{}", &snapshot.uid().unwrap()[..8]);
    let overlay = |file: String| (file.replace("raw", &word), file);
    let overlays: Vec<_> = story.sources("web").into_iter().map(overlay).collect();
    for (path, below) in &overlays {
        story.on_host(HOST, &["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", below, path]).unwrap();
    }
    overlays
}

async fn agent_back(story: &Story, before: Option<i32>) {
    story.release("agent-node-a");
    story.back("agent-node-a", before).await;
}

/// Deletes the snapshots; what was written before and after is in the volumes' own files.
async fn merged(story: &Story, overlays: &[(String, String)], names: &[&str]) {
    for (_, file) in overlays {
        assert_eq!([0, 4096].map(|at| story.byte(file, at).unwrap()), [1, 0], "as it was");
    }
    for name in names {
        story.delete::<Snapshot>(name).await;
    }
    is_merged(story, overlays);
}

fn is_merged(story: &Story, overlays: &[(String, String)]) {
    let files: Vec<_> = overlays.iter().map(|(_, file)| file.clone()).collect();
    assert_eq!((story.sources("web"), story.pool_files().len()), (files, 2));
    assert_eq!([0, 4096].map(|at| story.byte(&overlays[0].1, at).unwrap()), [1, 2]);
    assert_eq!(story.byte(&overlays[1].1, 0).unwrap(), 1);
}

#[tokio::test]
async fn a_snapshot_that_was_taken_and_not_written_down_is_found() {
    for (state, power) in [("Running", SnapshotPower::Running), ("Stopped", SnapshotPower::Stopped)] {
        let story = Story::alone(&format!("untold-{}", state.to_lowercase())).await;
        let pid = story.pid("agent-node-a");
        let overlays = begun(&story, state).await;
        let disk = |(target, (path, _)): (&str, &(String, String))| {
            format!("<disk name='{target}' snapshot='external'><driver type='qcow2'/><source file='{path}'/></disk>")
        };
        let disks: String = ["vda", "vdb"].into_iter().zip(&overlays).map(disk).collect();
        let file = story.outside(HOST, "/var/lib/virtfleet/untold.xml");
        std::fs::write(&file, format!("<domainsnapshot><disks>{disks}</disks></domainsnapshot>")).unwrap();
        let (domain, file) = (story.domain_name("web"), file.display().to_string());
        let how = ["--disk-only", "--atomic", "--reuse-external", "--no-metadata"];
        story.virsh(HOST, &[&["snapshot-create", &domain, &file], &how[..]].concat()).unwrap();
        assert_eq!(story.in_libvirt("web"), Vec::<String>::new());

        agent_back(&story, pid).await;
        let status = story.snapshot_is("s", "True", "Ready").await.status.unwrap();
        assert_eq!((status.power_state, status.disks.len()), (Some(power), 2));
        assert_eq!(story.in_libvirt("web"), ["s"]);
        story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": "Running"}})).await;
        story.vm_is("web", "True", "Running").await;
        let run = || story.virsh(HOST, &["domid", &domain]).unwrap();
        let first = run();
        story.write("web", "a", 2, "4k", "4k").unwrap();
        merged(&story, &overlays, &["s"]).await;
        assert_eq!(run(), first, "the guest ran on");
        story.end().await;
    }
}

/// Lets QEMU switch its disks to the overlays, and libvirt know nothing of it.
fn switch(story: &Story, overlays: &[(String, String)]) {
    let ask = |command: Value| -> Value {
        let said = story.virsh(HOST, &["qemu-monitor-command", &story.domain_name("web"), &command.to_string()]);
        let answer: Value = serde_json::from_str(&said.unwrap()).unwrap();
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["return"].clone()
    };
    let (disks, mut actions) = (ask(json!({"execute": "query-block"})), Vec::new());
    for (name, (path, below)) in DISKS.iter().zip(overlays) {
        let file = json!({"driver": "file", "filename": path});
        let node = json!({"node-name": name, "driver": "qcow2", "file": file, "backing": null});
        ask(json!({"execute": "blockdev-add", "arguments": node}));
        let disks = disks.as_array().unwrap();
        let on = disks.iter().find(|disk| disk["inserted"]["file"] == **below).unwrap();
        let data = json!({"node": on["inserted"]["node-name"], "overlay": name});
        actions.push(json!({"type": "blockdev-snapshot", "data": data}));
    }
    ask(json!({"execute": "transaction", "arguments": {"actions": actions}}));
}

#[tokio::test]
async fn a_guest_on_overlays_that_libvirt_does_not_know_keeps_what_it_writes() {
    let story = Story::alone("adrift").await;
    let pid = story.pid("agent-node-a");
    let overlays = begun(&story, "Running").await;
    switch(&story, &overlays);
    story.write("web", "a", 2, "4k", "4k").unwrap();
    let paths: Vec<_> = overlays.iter().map(|(path, _)| path.clone()).collect();
    let files: Vec<_> = overlays.iter().map(|(_, file)| file.clone()).collect();
    assert_eq!(story.sources("web"), files, "so libvirt believes");

    agent_back(&story, pid).await;
    story.snapshot_is("s", "False", "LibvirtBehind").await;
    story.apply(story.snapshot_manifest("t", "web", json!({}))).await.unwrap();
    story.snapshot_is("t", "False", "LibvirtBehind").await;
    let domain = story.domain_name("web");
    until("a definition on the overlays", async || {
        let list = story.virsh(HOST, &["domblklist", "--inactive", &domain])?;
        if paths.iter().all(|path| list.contains(path)) { Ok::<_, e2e::Error>(()) } else { Err(list.into()) }
    })
    .await;
    until("word of a restart", async || {
        let status = story.vm("web").await.and_then(|vm| vm.status).unwrap_or_default();
        let told: Vec<_> = status.pending_changes.iter().map(|change| change.path.clone()).collect();
        (told == ["spec.disks[a]", "spec.disks[b]"]).then_some(()).ok_or(format!("{told:?}"))
    })
    .await;

    let restart = json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": "now"}}});
    story.patch::<VirtualMachine>("web", restart).await;
    for name in ["s", "t"] {
        story.snapshot_is(name, "True", "Ready").await;
    }
    story.vm_is("web", "True", "Running").await;
    assert_eq!(story.in_libvirt("web"), ["s", "t"]);
    merged(&story, &overlays, &["t", "s"]).await;
    story.end().await;
}

#[tokio::test]
async fn what_a_snapshot_that_never_was_ready_has_switched_is_merged_when_it_goes() {
    let story = Story::alone("undone").await;
    let pid = story.pid("agent-node-a");
    let overlays = begun(&story, "Running").await;
    switch(&story, &overlays);
    story.write("web", "a", 2, "4k", "4k").unwrap();
    agent_back(&story, pid).await;
    story.snapshot_is("s", "False", "LibvirtBehind").await;
    story.api::<Snapshot>().delete("s", &DeleteParams::default()).await.unwrap();
    until("the deletion waits", async || {
        let status = story.snapshot("s").await.and_then(|snapshot| snapshot.status).unwrap_or_default();
        let blocked = find(&status.conditions, Type::DeletionBlocked).filter(|c| c.reason == "LibvirtBehind");
        blocked.map(drop).ok_or(format!("{status:?}"))
    })
    .await;
    let restart = json!({"metadata": {"annotations": {"virtfleet.dev/restartedAt": "now"}}});
    story.patch::<VirtualMachine>("web", restart).await;
    until("the end of the snapshot", async || {
        story.snapshot("s").await.map_or(Ok(()), |snapshot| Err(format!("{:?}", snapshot.status)))
    })
    .await;
    story.vm_is("web", "True", "Running").await;
    is_merged(&story, &overlays);
    story.end().await;
}
