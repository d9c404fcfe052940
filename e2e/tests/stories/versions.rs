//! An agent one version older and one newer than the controller: each does its work, and takes over what the other made without touching
//! it. The older binaries are built from this repository's history (`VIRTFLEET_PREVIOUS`, e2e/previous/build.sh); the CRDs are the newer
//! ones, since an upgrade begins with them.

use crds::Snapshot;
use crds::conditions::{Type, find};
use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, merged, until};
use serde_json::{Value, json};

/// What a switch of versions leaves as it is.
struct Seen {
    /// Number of the run, its domain, the definition, and both with our mark.
    domain: Vec<String>,
    spec: Value,
    generation: i64,
    ready_since: String,
}

fn look(story: &Story, host: &str, vm: &VirtualMachine) -> Seen {
    let domain = story.domain_name(vm.metadata.name.as_ref().unwrap());
    let virsh = |words: &[&str]| story.virsh(host, &[words, &[&*domain]].concat()).unwrap();
    let told = [virsh(&["domid"]), virsh(&["dumpxml"]), virsh(&["dumpxml", "--inactive"])];
    let ready = find(&vm.status.as_ref().unwrap().conditions, Type::Ready).unwrap();
    Seen {
        domain: told.iter().flat_map(|text| text.lines()).map(str::to_owned).collect(),
        spec: serde_json::to_value(&vm.spec).unwrap(),
        generation: vm.metadata.generation.unwrap(),
        ready_since: format!("{:?}", ready.last_transition_time),
    }
}

/// Asks for something that concerns no domain, waits until whoever looks after the machine now has seen it, and finds nothing else changed
/// but for lines of the domain that hold these words.
async fn is_left_alone(story: &Story, host: &str, name: &str, before: Seen, but_for: Option<&str>) {
    let mut spec = before.spec;
    let seconds = spec["shutdown"]["timeoutSeconds"].as_u64().unwrap() + 1;
    spec["shutdown"]["timeoutSeconds"] = seconds.into();
    story.patch::<VirtualMachine>(name, json!({"spec": {"shutdown": {"timeoutSeconds": seconds}}})).await;
    let after = look(story, host, &story.vm_is(name, "True", "Running").await);
    assert_eq!((after.spec, after.generation, after.ready_since), (spec, before.generation + 1, before.ready_since));
    let pairs = before.domain.iter().zip(&after.domain);
    let changed: Vec<_> =
        pairs.filter(|(old, new)| old != new && but_for.is_none_or(|words| !new.contains(words))).collect();
    assert!(changed.is_empty() && before.domain.len() == after.domain.len(), "{name}: {changed:#?}");
    story.kubectl(&["wait", "--for=condition=Ready", "--timeout=1s", &format!("vm/{name}")]).unwrap();
}

/// The element in which a version writes what it defined; all else is as before.
const MARK: &str = "<vf:owner";

#[tokio::test]
#[ignore = "needs the version before this one: make test-versions"]
async fn an_agent_of_either_version_takes_over_what_the_other_made() {
    let (story, host) = (Story::alone("skewagent").await, "node-b");
    let there = json!({"placement": {"host": host}});
    story.apply(story.with_disks("newer", &[("data", "Qcow2")], there.clone())).await.unwrap();
    let newer = story.vm_is("newer", "True", "Running").await;
    story.take("of-newer", "newer", json!({})).await;
    let newer = look(&story, host, &newer);

    let previous = story.previous("virtfleet-agent", "agent-node-b").await;
    is_left_alone(&story, host, "newer", newer, Some(MARK)).await;
    story.snapshot_is("of-newer", "True", "Ready").await;
    story.apply(story.guest("older", merged(there, json!({"shutdown": {"timeoutSeconds": 60}})))).await.unwrap();
    story.vm_is("older", "True", "Running").await;
    story.console_says(host, "older", "VIRTFLEET-GUEST-UP boot=1").await;
    story.take("of-older", "older", json!({})).await;
    story.patch::<VirtualMachine>("older", json!({"spec": {"powerState": "Stopped"}})).await;
    story.vm_is("older", "True", "Stopped").await;
    story.patch::<VirtualMachine>("older", json!({"spec": {"powerState": "Running"}})).await;
    story.console_says(host, "older", "VIRTFLEET-GUEST-UP boot=2").await;
    let (older, newer) = (story.vm_is("older", "True", "Running").await, story.vm("newer").await.unwrap());
    let (older, newer) = (look(&story, host, &older), look(&story, host, &newer));
    let ticks = story.ticks(host, "older");

    previous.end().await;
    is_left_alone(&story, host, "older", older, None).await;
    is_left_alone(&story, host, "newer", newer, None).await;
    for name in ["of-older", "of-newer"] {
        story.snapshot_is(name, "True", "Ready").await;
    }
    until("the guest to tick on", async || {
        let now = story.ticks(host, "older");
        if now > ticks { Ok(()) } else { Err(format!("{now} after {ticks}")) }
    })
    .await;
    assert!(!story.console(host, "older").contains("boot=3"));

    for name in ["older", "newer"] {
        story.delete::<Snapshot>(&format!("of-{name}")).await;
        story.delete::<VirtualMachine>(name).await;
        assert_eq!(story.domain(host, &story.domain_name(name)), "absent");
    }
    story.empty().await;
    assert_eq!(story.files(host), [""; 0]);
    story.end().await;
}

#[tokio::test]
#[ignore = "needs the version before this one: make test-versions"]
async fn a_controller_of_either_version_takes_over_what_the_other_placed() {
    let (story, host) = (Story::alone("skewcontroller").await, "node-a");
    story.apply(story.with_disks("newer", &[("data", "Qcow2")], json!({}))).await.unwrap();
    let newer = story.vm_is("newer", "True", "Running").await;
    let newer = look(&story, host, &newer);

    let previous = story.previous("virtfleet-controller", "controller").await;
    story.controller_leads().await;
    is_left_alone(&story, host, "newer", newer, None).await;
    // The emptiest host is chosen.
    let template = json!({"spec": {"storagePool": story.namespace, "capacity": "8Mi"}});
    let mut disks = vec![json!({"name": "data", "volumeTemplate": template})];
    story.apply(story.bare("placed", json!({"disks": disks}))).await.unwrap();
    let placed = story.vm_is("placed", "True", "Running").await.status.unwrap().host.unwrap();
    assert_eq!(placed, "node-b");
    disks.push(json!({"name": "more", "volumeTemplate": template}));
    story.apply(story.bare("placed", json!({"disks": disks}))).await.unwrap();
    until("the other disk", async || {
        let disks = story.vm("placed").await.and_then(|vm| vm.status).unwrap_or_default().disks;
        if disks.len() == 2 { Ok(()) } else { Err(format!("{disks:?}")) }
    })
    .await;
    story.delete::<VirtualMachine>("placed").await;
    assert_eq!(story.domain(&placed, &story.domain_name("placed")), "absent");

    story.apply(story.with_disks("older", &[("data", "Raw")], json!({}))).await.unwrap();
    let older = story.vm_is("older", "True", "Running").await;
    story.take("of-older", "older", json!({})).await;
    let newer = story.vm("newer").await.unwrap();
    let (older, newer) = (look(&story, host, &older), look(&story, host, &newer));

    previous.end().await;
    story.controller_leads().await;
    is_left_alone(&story, host, "older", older, None).await;
    is_left_alone(&story, host, "newer", newer, None).await;
    story.snapshot_is("of-older", "True", "Ready").await;
    story.delete::<VirtualMachine>("older").await;
    story.delete::<VirtualMachine>("newer").await;
    story.empty().await;
    assert_eq!([story.files("node-a"), story.files("node-b")].concat(), [""; 0]);
    story.end().await;
}
