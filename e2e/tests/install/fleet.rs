//! Virtfleet as it is installed on the bed's cluster: a node with an agent in a pod, and a host outside with an agent of its own.

use e2e::bench::rss::Rss;
use e2e::install::{chart, helm, kubectl};
use e2e::run::Run;
use e2e::shell::output;
use e2e::story::{Story, until};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::io::Write;
use std::time::Instant;

/// Installs the charts as the README says, with what this bed needs.
pub fn install(run: &Run) {
    chart(run, "virtfleet-crds", &[]).unwrap();
    chart(run, "virtfleet", &[&settings(run)]).unwrap();
}

/// The chart's settings of this bed: images come from its own server, and guests are emulated.
pub fn settings(run: &Run) -> String {
    let values = json!({"agent": {"importAllow": [format!("{}/32", run.address())], "forceEmulation": true}});
    let file = run.dir.join("values.json");
    std::fs::write(&file, values.to_string()).unwrap();
    format!("--values={}", file.display())
}

/// Uninstalls both charts, if they are there.
pub fn uninstall(run: &Run) {
    for chart in ["virtfleet", "virtfleet-crds"] {
        helm(run, &["uninstall", chart, "--ignore-not-found", "--wait"]).unwrap();
    }
}

/// Makes node-a a host by its label, and node-b one by a kubeconfig of its own.
pub async fn join(run: &Run) {
    kubectl(run, &["label", "node", "node-a", "virtfleet.dev/host=true", "--overwrite"]).unwrap();
    let host = run.dir.join("node-b.yaml");
    std::fs::write(&host, e2e::story::manifest("Host", "node-b", json!({})).to_string()).unwrap();
    kubectl(run, &["apply", "--server-side", "-f", &host.to_string_lossy()]).unwrap();
    let controller = run.dir.join("bin/virtfleet-controller").to_string_lossy().into_owned();
    let admin = format!("--kubeconfig={}", run.kubeconfig("admin").display());
    let file = output(&[&*controller, &*admin, "host-kubeconfig", "node-b"]).unwrap();
    std::fs::write(run.kubeconfig("node-b"), file).unwrap();
    // One that runs has read the one before; the keeper starts it again.
    let pid = std::fs::read_to_string(run.pid_file("agent-node-b")).ok().and_then(|pid| pid.parse().ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM).unwrap();
    }
}

/// A story on an installed fleet, whose hosts are ready.
pub async fn story(name: &str) -> Story {
    let run = Run::given().unwrap();
    install(&run);
    join(&run).await;
    let story = Story::alone(name).await;
    for host in ["node-a", "node-b"] {
        story.host_is(host, "True").await;
    }
    story
}

/// The only pod of a component (`agent`, `controller`), once it is the only one and ready.
pub async fn pod(client: &Client, component: &str) -> Pod {
    let pods = Api::<Pod>::namespaced(client.clone(), "virtfleet-system");
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
    until(&format!("one ready pod of the {component}"), async || {
        let list = pods.list(&ours).await.map_err(|error| error.to_string())?.items;
        let ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        };
        match list.as_slice() {
            [one] if ready(one) => Ok(one.clone()),
            other => Err(format!("{:?}", other.iter().map(ResourceExt::name_any).collect::<Vec<_>>())),
        }
    })
    .await
}

/// A guest that must live through what is done to what manages it.
pub struct Guest {
    vm: &'static str,
    id: String,
    boots: usize,
    ticks: u64,
}

impl Guest {
    /// Boots it on node-a and waits until it ticks.
    pub async fn boots(story: &Story, vm: &'static str) -> Guest {
        let place = json!({"placement": {"host": "node-a"}});
        story.apply(story.guest(vm, place)).await.unwrap();
        story.vm_is(vm, "True", "Running").await;
        story.console_says("node-a", vm, "tick 1").await;
        let id = story.virsh("node-a", &["domid", &story.domain_name(vm)]).unwrap();
        Guest { vm, id, boots: boots(story, vm), ticks: story.ticks("node-a", vm) }
    }

    /// It goes on: it ticks, in the same run of the same boot.
    pub async fn ticks_on(&mut self, story: &Story) {
        let before = self.ticks;
        self.ticks = until(&format!("tick {} of {}", before + 2, self.vm), async || {
            let now = story.ticks("node-a", self.vm);
            (now >= before + 2).then_some(now).ok_or(format!("tick {now}"))
        })
        .await;
        assert_eq!(
            story.virsh("node-a", &["domid", &story.domain_name(self.vm)]).unwrap(),
            self.id,
            "it was restarted"
        );
        assert_eq!(boots(story, self.vm), self.boots, "it was booted again");
    }
}

/// How often a guest of that name said that it has booted.
fn boots(story: &Story, vm: &str) -> usize {
    story.console("node-a", vm).matches("VIRTFLEET-GUEST-UP").count()
}

/// Says how long something took since a moment; `e2e/suite.sh` prints it in the end.
pub fn tell(run: &Run, since: Instant, what: &str) {
    say(run, &format!("{:>6.1} s   {what}", since.elapsed().as_secs_f32()));
}

/// Says what each process of a component holds now, and in which whole second after its start its pod was ready.
pub async fn tell_cost(run: &Run, client: &Client, component: &str) {
    let pods = Api::<Pod>::namespaced(client.clone(), "virtfleet-system");
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
    for pod in pods.list(&ours).await.unwrap() {
        let status = pod.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().find(|one| one.type_ == "Ready" && one.status == "True");
        let container = &status.container_statuses.unwrap_or_default()[0];
        let started = container.state.as_ref().and_then(|state| state.running.as_ref()?.started_at.clone()).unwrap();
        let ready = ready.and_then(|ready| ready.last_transition_time.clone()).unwrap();
        let id = container.container_id.as_deref().and_then(|id| id.strip_prefix("containerd://")).unwrap().to_owned();
        let held = Rss::of(process(&id)).unwrap().mebibytes();
        let seconds = ready.0.duration_since(started.0).as_secs();
        say(run, &format!("{held:>6.1} MiB {component}, idle; ready within {} s of its start", seconds + 1));
    }
}

/// The first process in a container.
fn process(container: &str) -> u32 {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let mut inside: Vec<u32> = all
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|cgroups| cgroups.contains(container))
        })
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect();
    inside.sort_unstable();
    inside[0]
}

fn say(run: &Run, line: &str) {
    let log = std::fs::File::options().create(true).append(true).open(run.dir.join("log/install"));
    log.unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
}
