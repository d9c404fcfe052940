//! What is asked for in the same second ends as if it had come one after another, in whatever order.

use crds::virtual_machine::{MachinePhase, VirtualMachine};
use crds::{StorageVolume, quantity};
use e2e::story::{Story, until};
use kube::api::DeleteParams;
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ask {
    Attach,
    Grow,
    Stop,
    Delete,
}

const ORDERS: [[Ask; 4]; 8] = {
    use Ask::{Attach, Delete, Grow, Stop};
    [
        [Attach, Grow, Stop, Delete],
        [Attach, Stop, Grow, Delete],
        [Grow, Attach, Stop, Delete],
        [Stop, Attach, Grow, Delete],
        [Grow, Stop, Attach, Delete],
        [Stop, Grow, Attach, Delete],
        [Stop, Delete, Grow, Attach],
        [Delete, Attach, Grow, Stop],
    ]
};

async fn ask(story: &Story, at: usize, what: Ask) {
    let (vm, volume) = (format!("web-{at}"), format!("disk-{at}"));
    // A machine that is gone by then cannot be changed any more: that is an answer too.
    let change = async |spec| {
        let patch = kube::api::Patch::Merge(json!({"spec": spec}));
        let _ = story.api::<VirtualMachine>().patch(&vm, &Default::default(), &patch).await;
    };
    match what {
        Ask::Attach => {
            let disks = json!([{"name": "disk", "volume": volume}, {"name": "more", "volume": format!("more-{at}")}]);
            change(json!({"disks": disks})).await;
        }
        Ask::Grow => story.patch::<StorageVolume>(&volume, json!({"spec": {"capacity": "2Mi"}})).await,
        Ask::Stop => change(json!({"powerState": "Stopped"})).await,
        Ask::Delete => drop(story.api::<VirtualMachine>().delete(&vm, &DeleteParams::default()).await),
    }
}

async fn make(story: &Story, at: usize) {
    for name in ["disk", "more"] {
        story.apply(story.volume_manifest(&format!("{name}-{at}"), json!({"capacity": "1Mi"}))).await.unwrap();
    }
    let disks = json!([{"name": "disk", "volume": format!("disk-{at}")}]);
    story.apply(story.bare(&format!("web-{at}"), json!({"disks": disks}))).await.unwrap();
}

async fn has_grown(story: &Story, at: usize) {
    until(&format!("the growth of disk-{at}"), async || {
        let status = story.volume(&format!("disk-{at}")).await.and_then(|volume| volume.status).ok_or("gone")?;
        let capacity = status.capacity.as_ref().and_then(quantity::units);
        (capacity == Some(2 << 20)).then_some(()).ok_or(format!("{status:?}"))
    })
    .await;
}

#[tokio::test]
async fn an_attach_a_growth_and_a_stop_end_the_same_in_every_order() {
    let story = Story::new("together").await;
    for at in 0..6 {
        make(&story, at).await;
    }
    for (at, order) in ORDERS.iter().take(6).enumerate() {
        story.vm_is(&format!("web-{at}"), "True", "Running").await;
        for what in order.iter().filter(|what| **what != Ask::Delete) {
            ask(&story, at, *what).await;
        }
    }
    for (at, order) in ORDERS.iter().take(6).enumerate() {
        let vm = format!("web-{at}");
        let stopped = story.vm_is(&vm, "True", "Stopped").await.status.unwrap();
        assert_eq!((stopped.phase, stopped.disks.len()), (Some(MachinePhase::Stopped), 2), "{order:?}");
        let host = stopped.host.unwrap();
        assert_eq!(story.domain(&host, &story.domain_name(&vm)), "shut off");
        has_grown(&story, at).await;
    }
    story.end().await;
}

#[tokio::test]
async fn a_deletion_among_them_leaves_no_domain_and_all_of_the_data() {
    let story = Story::new("amid").await;
    for at in 0..ORDERS.len() {
        make(&story, at).await;
    }
    for (at, order) in ORDERS.iter().enumerate() {
        story.vm_is(&format!("web-{at}"), "True", "Running").await;
        for what in order {
            ask(&story, at, *what).await;
        }
    }
    for at in 0..ORDERS.len() {
        let vm = format!("web-{at}");
        until(&format!("the end of {vm}"), async || match story.vm(&vm).await {
            None => Ok(()),
            Some(vm) => Err(format!("{:?}", vm.status)),
        })
        .await;
        for host in e2e::HOSTS {
            assert_eq!(story.domain(host, &story.domain_name(&vm)), "absent");
        }
        has_grown(&story, at).await;
    }
    story.end().await;
}
