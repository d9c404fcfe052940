//! The API server is away: guests tick on, nothing is touched, and what happened meanwhile is told once it is back. `make outages` has it
//! away for five minutes.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, length_of_absence, until};
use kube::api::DeleteParams;
use serde_json::json;
use std::time::{Duration, Instant};

const HOST: &str = "node-a";
/// Looked at again this soon, however long it was away: agents try each 15 s at the longest, and an emulated host takes its time.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn guests_tick_on_while_the_api_server_is_away_and_all_is_told_soon_after() {
    let away = length_of_absence(Duration::from_secs(30));
    let story = Story::alone("outage").await;
    let here = |spec| e2e::story::merged(json!({"placement": {"host": HOST}}), spec);
    story.apply(story.guest("web", here(json!({})))).await.unwrap();
    for name in ["crashed", "stopped", "deleted"] {
        story.apply(story.bare(name, here(json!({"restartPolicy": "Never"})))).await.unwrap();
    }
    for name in ["web", "crashed", "stopped", "deleted"] {
        story.vm_is(name, "True", "Running").await;
    }
    story.console_says(HOST, "web", "tick 2").await;
    let untouched = ["web", "stopped"].map(|name| story.domain_name(name));
    let looked = || {
        let look = |domain: &String| {
            ["domid", "dumpxml"].map(|what| story.virsh(HOST, &[what, domain]).unwrap()).join("\n")
                + &story.virsh(HOST, &["dumpxml", "--inactive", domain]).unwrap()
        };
        untouched.each_ref().map(look)
    };
    let (before, ticks) = (looked(), story.ticks(HOST, "web"));

    let pid = story.pid("kube-apiserver");
    story.hold("kube-apiserver");
    // Passes that cannot write fail from now on.
    story.virsh(HOST, &["destroy", &story.domain_name("crashed")]).unwrap();
    // The length of the absence is the story; nothing is waited for.
    tokio::time::sleep(away).await;
    let after = story.ticks(HOST, "web");
    assert!(after > ticks + away.as_secs() / 3, "{ticks} then {after}");
    assert_eq!(looked(), before, "no domain was touched");
    assert_eq!(story.domain(HOST, &story.domain_name("crashed")), "shut off", "nobody started it again");

    story.release("kube-apiserver");
    story.back("kube-apiserver", pid).await;
    let answers = async || story.api::<VirtualMachine>().get("web").await.map(|_| ());
    until("the API server", answers).await;
    let back = Instant::now();
    story.patch::<VirtualMachine>("stopped", json!({"spec": {"powerState": "Stopped"}})).await;
    story.api::<VirtualMachine>().delete("deleted", &DeleteParams::default()).await.unwrap();
    story.vm_is("crashed", "False", "Crashed").await;
    let told = back.elapsed();
    story.vm_is("stopped", "True", "Stopped").await;
    until("the end of a machine", async || {
        story.vm("deleted").await.map_or(Ok(()), |vm| Err(format!("{:?}", vm.status)))
    })
    .await;
    let followed = back.elapsed();
    story.host_is(HOST, "True").await;
    story.vm_is("web", "True", "Running").await;
    let right = back.elapsed();
    println!("away for {away:?}: told after {told:?}, orders followed after {followed:?}, all right after {right:?}");
    assert!(right < SOON, "{told:?} {followed:?} {right:?}");
    assert_eq!(looked()[0], before[0], "it is the same run");
    story.end().await;
}
