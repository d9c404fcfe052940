//! Eight guests hang (their QEMU stands still) with something asked of each: a ninth machine notices nothing.

use crds::virtual_machine::VirtualMachine;
use e2e::story::Story;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::time::{Duration, Instant};

const HOST: &str = "node-a";
const HUNG: usize = 8;
/// A bare machine is defined and started in well under a second; libvirt's patience with one hung QEMU is 30 s, with eight in a row minutes.
const PROMPT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn eight_hung_guests_do_not_delay_a_ninth() {
    let story = Story::alone("hung").await;
    let here = json!({"placement": {"host": HOST}});
    for i in 0..HUNG {
        story.apply(story.bare(&format!("hung-{i}"), here.clone())).await.unwrap();
    }
    let mut stopped = Vec::new();
    for i in 0..HUNG {
        let name = format!("hung-{i}");
        story.vm_is(&name, "True", "Running").await;
        let pid = qemu(&story, &name);
        kill_process(pid, Signal::STOP).unwrap();
        stopped.push(pid);
        story.patch::<VirtualMachine>(&name, json!({"spec": {"powerState": "Stopped"}})).await;
    }
    // Each of the eight now holds a call of libvirt that does not come back.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    let template = json!({"spec": {"storagePool": "hung", "capacity": "1Mi"}});
    let disks = json!([{"name": "data", "volumeTemplate": template}]);
    story.apply(story.bare("ninth", e2e::story::merged(here, json!({"disks": disks})))).await.unwrap();
    story.vm_is("ninth", "True", "Running").await;
    assert!(begun.elapsed() < PROMPT, "{:?} to the start", begun.elapsed());
    let begun = Instant::now();
    story.patch::<VirtualMachine>("ninth", json!({"spec": {"powerState": "Stopped"}})).await;
    story.vm_is("ninth", "True", "Stopped").await;
    assert!(begun.elapsed() < PROMPT, "{:?} to the stop", begun.elapsed());
    for pid in stopped {
        kill_process(pid, Signal::CONT).unwrap();
    }
    for i in 0..HUNG {
        story.vm_is(&format!("hung-{i}"), "True", "Stopped").await;
    }
    story.end().await;
}

/// The guest's process: the one whose command line holds the domain's UUID, which is this run's alone.
fn qemu(story: &Story, vm: &str) -> Pid {
    let uuid = story.virsh(HOST, &["domuuid", &story.domain_name(vm)]).unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let found = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.starts_with("/usr/bin/qemu-system") && words.contains(&uuid)
    });
    found.and_then(Pid::from_raw).unwrap_or_else(|| panic!("no QEMU with {uuid}"))
}
