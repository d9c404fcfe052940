//! The leading controller is paused past its Lease, another takes over, and the first wakes: nothing is placed twice.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use kube::api::ListParams;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::process::{Child, Command, Stdio};

const MACHINES: usize = 12;

#[tokio::test]
async fn a_leader_that_was_paused_past_its_lease_places_nothing_when_it_wakes() {
    let story = Story::alone("leaders").await;
    let first = story.leader().await;
    let paused = Pid::from_raw(story.pid("controller").unwrap()).unwrap();
    let template = json!({"spec": {"storagePool": "leaders", "capacity": "1Mi"}});
    let make = async |i: usize| {
        let spec = json!({"disks": [{"name": "d", "volumeTemplate": template}], "powerState": "Stopped"});
        story.apply(story.bare(&format!("vm-{i}"), spec)).await.unwrap();
    };
    // Paused in the middle of its work.
    for i in 0..MACHINES / 2 {
        make(i).await;
    }
    kill_process(paused, Signal::STOP).unwrap();
    let second = Second::start(&story);
    until("the second to lead", async || {
        let now = story.leader().await;
        (now != first && !now.is_empty()).then_some(()).ok_or(now)
    })
    .await;
    for i in MACHINES / 2..MACHINES {
        make(i).await;
    }
    kill_process(paused, Signal::CONT).unwrap();
    for i in 0..MACHINES {
        story.vm_is(&format!("vm-{i}"), "True", "Stopped").await;
    }
    let all = story.api::<VirtualMachine>().list(&ListParams::default()).await.unwrap();
    for vm in all {
        let (name, status) = (vm.metadata.name.unwrap(), vm.status.unwrap());
        let domain = story.domain_name(&name);
        let on: Vec<_> = e2e::HOSTS.into_iter().filter(|host| story.domain(host, &domain) != "absent").collect();
        assert_eq!(on, [status.host.unwrap()], "{name}");
    }
    // The one that woke gave up and started anew, to wait for its turn.
    until("the paused one's end", async || {
        let now = story.pid("controller");
        (now.is_some() && now != Some(paused.as_raw_nonzero().get())).then_some(()).ok_or("it still runs")
    })
    .await;
    drop(second);
    story.controller_leads().await;
    story.end().await;
}

/// A second controller, ended with the story.
struct Second(Child);

impl Second {
    fn start(story: &Story) -> Second {
        let log = std::fs::File::create(story.run.dir.join("log/second-controller.log")).unwrap();
        let child = Command::new(story.run.dir.join("bin/virtfleet-controller"))
            .arg(format!("--kubeconfig={}", story.run.kubeconfig("controller").display()))
            .arg(format!("--listen={}:9191", story.run.address()))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        Second(child.unwrap())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
