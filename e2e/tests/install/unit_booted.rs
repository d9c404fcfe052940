//! A host outside the cluster by the words of `docs/install.md`: systemd boots it and starts the agent in the unit's sandbox, which lets through
//! all that an agent does, and nothing else; guests notice nothing of the agent's ends.

use crate::fleet::{self, Guest, join, kubeconfig, tell};
use crds::conditions::{Type, find};
use crds::virtual_machine::VirtualMachine;
use crds::{Snapshot, StorageVolume, quantity};
use e2e::booted::Booted;
use e2e::host::Host;
use e2e::install::host_manifest;
use e2e::run::Run;
use e2e::shell::output;
use e2e::story::{Story, until};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// It begins without the bed's agent of it, and without its Host.
const HOST: &str = "node-b";
const UNIT: &str = "virtfleet-agent";

#[tokio::test]
async fn systemd_keeps_an_agent_that_may_do_its_work_and_nothing_else() {
    let story = fleet::story("unit").await;
    story.stop("agent-node-b");
    until("the end of the bed's agent", async || story.pid("agent-node-b").map_or(Ok(()), |_| Err("it runs"))).await;
    story.end_host(HOST).await;

    let begun = Instant::now();
    let edge = boot(&story.run);
    tell(&story.run, begun, "systemd has booted on a host outside");
    story.apply(host_manifest(HOST)).await.unwrap();
    install(&story.run, &edge);
    story.host_is(HOST, "True").await;
    tell(&story.run, begun, "its agent is installed, and its Host is ready");
    is_confined(&edge);

    // Files that the agent makes and lets grow, alone and by qemu-img.
    for (name, format, allocation) in [("raw", "Raw", "Thin"), ("full", "Raw", "Full"), ("filled", "Qcow2", "Full")] {
        let spec = json!({"capacity": "1Mi", "format": format, "allocation": allocation, "host": HOST,
            "deletionPolicy": "Delete"});
        story.apply(story.volume_manifest(name, spec)).await.unwrap();
        story.volume_is(name, "True", "Ready").await;
        grow(&story, name, 2).await;
    }
    // Its image comes from a server that has a name.
    let mut root = story.guest("web", json!({}))["spec"]["disks"][0].clone();
    edge.run(&format!("echo '{} images.example' >> /etc/hosts", story.run.address())).unwrap();
    root["volumeTemplate"]["spec"]["source"]["http"]["url"] = json!("http://images.example:8080/guest.qcow2");
    let disks = json!([root, {"name": "data", "volume": "raw"}]);
    story.apply(story.guest("web", json!({"placement": {"host": HOST}, "disks": disks}))).await.unwrap();
    let mut guest = Guest::ticks(&story, "web", HOST).await;
    tell(&story.run, begun, "an imported guest has booted there");
    let console = edge.run("cat /var/log/libvirt/virtfleet/unit.web.log").unwrap();
    assert!(console.contains("VIRTFLEET-GUEST-UP"), "{console}");

    // What works on a guest that runs: growth, a snapshot, its merge.
    let in_guest = async |command: &str| story.in_guest(HOST, "web", command).await;
    grow(&story, "raw", 4).await;
    assert_eq!(in_guest("cat /sys/class/block/vdb/size").await, "8192");
    let write = |text: &str, at: u8| format!("printf {text} | dd of=/dev/vdb bs=512 seek={at} conv=notrunc,fsync");
    in_guest(&write("sooner", 0)).await;
    story.take("between", "web", json!({})).await;
    in_guest(&write("later", 1)).await;
    story.delete::<Snapshot>("between").await;
    let files = story.virsh(HOST, &["domblklist", "unit.web"]).unwrap();
    assert!(!files.contains("between"), "{files}");
    let path = story.volume("raw").await.unwrap().status.unwrap().path.unwrap();
    let bytes = fs::read(story.outside(HOST, &path)).unwrap();
    assert!(bytes.starts_with(b"sooner") && bytes[512..].starts_with(b"later"), "the merged file");
    guest.ticks_on(&story).await;

    // Nothing of that was refused.
    assert_eq!(shows(&edge, "NRestarts"), "0");
    edge.run(&format!("kill -9 {}", shows(&edge, "MainPID"))).unwrap();
    until("the agent after its violent end", async || match (shows(&edge, "NRestarts"), shows(&edge, "MainPID")) {
        (count, pid) if count == "1" && pid != "0" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    obeys(&story, "killed").await;
    edge.run("systemctl restart virtfleet-agent").unwrap();
    obeys(&story, "restarted").await;

    edge.run("systemctl stop virtfleet-agent").unwrap();
    assert_eq!(shows(&edge, "ActiveState"), "inactive");
    guest.ticks_on(&story).await;
    let token = edge.run("cat /var/lib/virtfleet-agent/token").unwrap();
    assert!(!edge.run("cat /etc/virtfleet/kubeconfig").unwrap().contains(&token), "it has renewed none");
    assert_eq!(edge.run("stat -c '%a %U' /var/lib/virtfleet-agent/token").unwrap(), "600 root");
    complains_of_nothing(&edge);

    // The power fails; what is enabled starts by itself. The kubeconfig's own token may be over by then: it has kept its next one.
    let kubeconfig = edge.root.join("etc/virtfleet/kubeconfig");
    let mut without: Value = serde_json::from_slice(&fs::read(&kubeconfig).unwrap()).unwrap();
    without["users"][0]["user"] = json!({});
    fs::write(&kubeconfig, without.to_string()).unwrap();
    drop(edge);
    let edge = boot(&story.run);
    obeys(&story, "powered").await;
    guest.ticks_on(&story).await;

    story.delete::<VirtualMachine>("web").await;
    story.empty().await;
    until("the end of all files", async || {
        let left = story.files(HOST);
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
    complains_of_nothing(&edge);
    drop(edge);
    join(&story.run).await;
    story.release("agent-node-b");
    tell(&story.run, begun, "it has done all that is asked of an agent, and is off");
    story.end().await;
}

/// Boots the host outside, for the first time or again.
fn boot(run: &Run) -> Booted {
    let archive = std::env::var("VIRTFLEET_BOOTED").expect("VIRTFLEET_BOOTED: e2e/suite.sh sets it");
    Booted::boot(run, &Host::of(run, 1), Path::new(&archive)).unwrap()
}

/// Gives it the two files of the administrator and the settings that a bed needs, and does what the page says.
fn install(run: &Run, edge: &Booted) {
    let pack = run.checkout.join("deploy/systemd/pack.sh");
    let home = edge.root.join("root");
    output(&[&pack, &run.dir.join("bin/virtfleet-agent"), &home.join("virtfleet-agent.tar.gz")]).unwrap();
    fs::write(home.join("edge-1.kubeconfig"), kubeconfig(run, HOST)).unwrap();
    let page = fs::read_to_string(run.checkout.join("docs/install.md")).unwrap();
    let commands = page.split_once("On a host with systemd").and_then(|(_, rest)| rest.split("```").nth(1)).unwrap();
    let settings = format!("VIRTFLEET_IMPORT_ALLOW={}/32\nVIRTFLEET_FORCE_EMULATION=true", run.address());
    for command in commands.lines() {
        if command.starts_with("systemctl") {
            edge.run(&format!("echo '{settings}' >> /etc/virtfleet/agent.env")).unwrap();
        }
        edge.run(command).unwrap();
    }
    assert_eq!(edge.run("systemctl is-enabled virtfleet-agent").unwrap(), "enabled");
}

/// The agent has what the unit leaves it.
fn is_confined(edge: &Booted) {
    let pid = shows(edge, "MainPID");
    let status = edge.run(&format!("cat /proc/{pid}/status")).unwrap();
    // Only the second capability, CAP_DAC_OVERRIDE; a filter of system calls.
    for words in
        ["CapEff:\t0000000000000002", "CapBnd:\t0000000000000002", "NoNewPrivs:\t1", "Seccomp:\t2", "Umask:\t0022"]
    {
        assert!(status.contains(words), "no {words} in {status}");
    }
    let seen = |command: &str| edge.run(&format!("nsenter -t {pid} -m {command}"));
    let refused = seen("touch /etc/virtfleet/new").unwrap_err().to_string();
    assert!(refused.contains("Read-only file system"), "{refused}");
    assert!(seen("ls /root/edge-1.kubeconfig").is_err(), "homes are hidden");
    assert_eq!(seen("find /dev -type b").unwrap(), "", "disks are hidden");
}

/// The unit's journal tells of nothing that was refused, and of no end by the filter of system calls.
fn complains_of_nothing(edge: &Booted) {
    let journal = edge.run(&format!("journalctl --no-pager -b -u {UNIT}")).unwrap();
    assert!(journal.contains("Started"), "{journal}");
    let refusals = ["SYS", "Operation not permitted", "Permission denied", "Read-only file system", "Bad system call"];
    let told: Vec<_> = journal.lines().filter(|line| refusals.iter().any(|words| line.contains(words))).collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// A property of the unit.
fn shows(edge: &Booted, property: &str) -> String {
    edge.run(&format!("systemctl show -P {property} {UNIT}")).unwrap()
}

/// The agent does what is asked of it now.
async fn obeys(story: &Story, name: &str) {
    story.take(name, "web", json!({})).await;
    story.delete::<Snapshot>(name).await;
}

/// Asks for so many mebibytes, and waits until the volume has them.
async fn grow(story: &Story, name: &str, mebibytes: u64) {
    story.patch::<StorageVolume>(name, json!({"spec": {"capacity": format!("{mebibytes}Mi")}})).await;
    until(&format!("{name} of {mebibytes} MiB"), async || {
        let status = story.volume(name).await.and_then(|volume| volume.status).ok_or("gone")?;
        let capacity = status.capacity.as_ref().and_then(quantity::units);
        let ready = find(&status.conditions, Type::Ready).is_some_and(|ready| ready.status == "True");
        (capacity == Some(mebibytes << 20) && ready)
            .then_some(())
            .ok_or(format!("{capacity:?} {:?}", status.conditions))
    })
    .await;
}
