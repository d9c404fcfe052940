//! etcd is put back to an older copy: what is not in it any more is no order to remove anything, what is in it again holds again.

use crds::virtual_machine::VirtualMachine;
use e2e::story::{Story, until};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const HOST: &str = "node-a";

/// Ends API server and etcd, does something to etcd's data, and lets both come back.
async fn without_etcd(story: &Story, act: impl FnOnce()) {
    let programs = ["kube-apiserver", "etcd"];
    let before = programs.map(|program| story.pid(program));
    for program in programs {
        story.hold(program);
        until(&format!("the end of {program}"), async || story.pid(program).map_or(Ok(()), |_| Err("it runs"))).await;
    }
    act();
    for (program, before) in programs.into_iter().zip(before).rev() {
        story.release(program);
        story.back(program, before).await;
    }
    until("the API server", async || story.host(HOST).await.map(|_| ()).ok_or("no answer")).await;
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn an_older_copy_of_etcd_removes_nothing_and_what_it_says_holds_again() {
    let story = Story::alone("restored").await;
    let (data, kept) = (story.run.dir.join("etcd"), story.run.dir.join("etcd-kept"));
    let here = || json!({"placement": {"host": HOST}});
    for name in ["kept", "stopped", "deleted"] {
        story.apply(story.bare(name, here())).await.unwrap();
        story.vm_is(name, "True", "Running").await;
    }
    without_etcd(&story, || copy(&data, &kept)).await;

    story.apply(story.bare("later", here())).await.unwrap();
    story.vm_is("later", "True", "Running").await;
    story.patch::<VirtualMachine>("stopped", json!({"spec": {"powerState": "Stopped"}})).await;
    story.vm_is("stopped", "True", "Stopped").await;
    story.delete::<VirtualMachine>("deleted").await;
    let run = |name: &str| story.virsh(HOST, &["domid", &story.domain_name(name)]).unwrap();
    let (first, later) = (run("kept"), run("later"));

    without_etcd(&story, || {
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(&kept, &data).unwrap();
    })
    .await;
    assert!(story.vm("later").await.is_none(), "the copy is older");
    // An agent that went deaf would leave these as they were.
    for name in ["stopped", "deleted"] {
        until(&format!("{name} runs again"), async || {
            let state = story.domain(HOST, &story.domain_name(name));
            (state == "running").then_some(()).ok_or(state)
        })
        .await;
        story.vm_is(name, "True", "Running").await;
    }
    story.vm_is("kept", "True", "Running").await;
    assert_eq!((run("kept"), run("later")), (first, later.clone()), "no guest was touched");
    until("what runs without an object in the host's report", async || {
        let status = story.host(HOST).await.and_then(|host| host.status).unwrap_or_default();
        status.domains.iter().any(|d| d.name == "later").then_some(()).ok_or(format!("{:?}", status.domains))
    })
    .await;
    // Its manifest takes it back as it runs.
    let again: Value = story.bare("later", json!({}));
    story.apply(again).await.unwrap();
    let vm = story.vm_is("later", "True", "Running").await;
    assert_eq!((vm.status.unwrap().host.as_deref(), run("later")), (Some(HOST), later));
    story.end().await;
}
