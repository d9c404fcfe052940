//! A host that is gone for ever: what waits for it is let go by the words of docs/troubleshooting.md, everybody is told, and when it comes
//! back after all it has lost nothing.

use crds::Host;
use crds::storage_volume::StorageVolume;
use crds::virtual_machine::VirtualMachine;
use e2e::bench::audit::{Mark, Write};
use e2e::install::kubectl;
use e2e::story::{Story, until};
use k8s_openapi::api::core::v1::{Event, ServiceAccount};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::fs;

const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

/// The lines of the page's section from the first that begins so to the end of its block, without the block's indentation.
fn documented(begins: &str) -> Vec<&'static str> {
    let (_, section) = PAGE.split_once("## A host that is gone for ever\n").unwrap();
    let from: Vec<_> = section.lines().skip_while(|line| !line.trim_start().starts_with(begins)).collect();
    let indented = from[0].len() - from[0].trim_start().len();
    from.into_iter().take_while(|line| !line.trim_start().starts_with("```")).map(|line| &line[indented..]).collect()
}

fn manifests(story: &Story) -> [Value; 2] {
    let template = json!({"spec": {"storagePool": "hostgone", "capacity": "1Mi"}});
    let disks = json!([{"name": "root", "volumeTemplate": template}, {"name": "data", "volume": "store"}]);
    [
        story.volume_manifest("store", json!({"capacity": "1Mi", "deletionPolicy": "Delete"})),
        story.bare("web", json!({"disks": disks})),
    ]
}

async fn apply(story: &Story) -> VirtualMachine {
    for manifest in manifests(story) {
        story.apply(manifest).await.unwrap();
    }
    story.vm_is("web", "True", "Running").await
}

/// Bound here: name and uid of each.
async fn bound(story: &Story, host: &str) -> Vec<String> {
    let here = ListParams::default().fields(&format!("status.host={host}"));
    let names = |metadata: &kube::core::ObjectMeta| {
        format!("{} {}", metadata.name.clone().unwrap_or_default(), metadata.uid.clone().unwrap_or_default())
    };
    let (vms, volumes, snapshots) = (
        story.api::<VirtualMachine>().list(&here).await.unwrap(),
        story.api::<StorageVolume>().list(&here).await.unwrap(),
        story.api::<crds::Snapshot>().list(&here).await.unwrap(),
    );
    let metadata = vms.items.iter().map(|o| &o.metadata).chain(volumes.items.iter().map(|o| &o.metadata));
    metadata.chain(snapshots.items.iter().map(|o| &o.metadata)).map(names).collect()
}

#[tokio::test]
async fn what_a_host_had_is_let_go_and_is_still_there_when_it_returns() {
    let story = Story::alone("hostgone").await;
    // Where it shall be, without a word of that in the manifests.
    let schedulable = |word: &str| {
        let patch = format!(r#"{{"spec":{{"schedulable":{word}}}}}"#);
        story.kubectl(&["patch", "host", "node-a", "--type=merge", "-p", &patch]).unwrap()
    };
    schedulable("false");
    let old = apply(&story).await;
    schedulable("true");
    assert_eq!(old.status.as_ref().unwrap().host.as_deref(), Some("node-b"));
    for name in ["goes-along", "waits"] {
        story.take(name, "web", json!({})).await;
    }
    let there = bound(&story, "node-b").await;
    assert_eq!(there.len(), 5, "{there:?}");
    let domain = story.domain_name("web");
    let run = || story.virsh("node-b", &["domid", &domain]).unwrap();
    let (id, xml, files) = (run(), story.virsh("node-b", &["dumpxml", &domain]).unwrap(), story.files("node-b"));

    // Its agent is silent for ever, and what is deleted waits.
    let pid = story.pid("agent-node-b");
    story.hold("agent-node-b");
    story.vm_is("web", "Unknown", "HostLost").await;
    for (kind, name) in [("vm", "web"), ("vol", "store"), ("snap", "waits")] {
        let hangs = story.kubectl(&["delete", kind, name, "--timeout=2s"]).unwrap_err().to_string();
        assert!(hangs.contains("timed out"), "{hangs}");
    }
    let told = story.vm_is("web", "Unknown", "HostLost").await.status.unwrap().conditions;
    assert!(told.iter().any(|c| c.message.contains("what is being deleted waits for it")), "{told:?}");
    story.volume_is("store", "Unknown", "HostLost").await;
    story.snapshot_is("waits", "Unknown", "HostLost").await;
    assert_eq!(bound(&story, "node-b").await, there);

    // The documented way. An annotation too many on the Host itself changes nothing.
    let mark = Mark::now(&story.run).unwrap();
    story.kubectl(&["annotate", "host", "node-b", "virtfleet.dev/teardown=Orphan"]).unwrap();
    let steps = documented("kubectl delete host NAME");
    assert_eq!(steps.len(), 4, "{steps:?}");
    for step in steps {
        let words = step.replace("NAME", "node-b");
        let words: Vec<_> = words.split_whitespace().skip(1).collect();
        let said = kubectl(&story.run, &words).unwrap();
        if words[0] == "get" {
            assert!(
                ["/web", "/web-root", "/store", "/goes-along", "/waits"].iter().all(|n| said.contains(n)),
                "{said}"
            );
        }
    }
    until("the end of all of it", async || {
        let left = bound(&story, "node-b").await;
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
    let accounts = Api::<ServiceAccount>::namespaced(story.client.clone(), crds::HOSTS_NAMESPACE);
    assert!(accounts.get_opt("node-b").await.unwrap().is_none(), "its account");
    is_told(
        &story,
        &[
            ("VirtualMachine", "web", "domain hostgone.web"),
            ("StorageVolume", "web-root", "file /var/lib/virtfleet/hostgone/hostgone.web-root-"),
            ("StorageVolume", "store", "file /var/lib/virtfleet/hostgone/hostgone.store-"),
            ("Snapshot", "goes-along", "snapshot goes-along of domain hostgone.web"),
            ("Snapshot", "waits", "snapshot waits of domain hostgone.web"),
        ],
    )
    .await;
    is_audited(&story, &mark).await;

    // Nothing waits for its word any more.
    let new = apply(&story).await;
    assert_eq!(new.status.as_ref().unwrap().host.as_deref(), Some("node-a"));
    story.volume_is("store", "True", "Ready").await;
    assert_eq!(run(), id, "and there it runs on");

    // It was not gone after all.
    story.rejoin("node-b").await;
    story.release("agent-node-b");
    story.back("agent-node-b", pid).await;
    story.host_is("node-b", "True").await;
    until("the domain in the host's report", async || {
        let domains = story.host("node-b").await.and_then(|host: Host| host.status).unwrap_or_default().domains;
        domains
            .iter()
            .any(|d| d.name == "web" && Some(&d.uid) == old.uid().as_ref())
            .then_some(())
            .ok_or(format!("{domains:?}"))
    })
    .await;
    // Its agent works, and has looked at what is its own.
    story.apply(story.bare("other", json!({"placement": {"host": "node-b"}}))).await.unwrap();
    story.vm_is("other", "True", "Running").await;
    let now = story.vm_is("web", "True", "Running").await;
    assert_eq!((now.uid(), now.status.unwrap().host.as_deref()), (new.uid(), Some("node-a")));
    // Nor does the end of the new ones touch it.
    story.empty().await;
    assert_eq!(story.domain("node-a", &domain), "absent");
    assert_eq!((run(), story.files("node-b")), (id, files));
    assert_eq!(story.virsh("node-b", &["dumpxml", &domain]).unwrap(), xml);

    for words in [&["destroy", &*domain][..], &["undefine", &domain, "--snapshots-metadata"]] {
        story.virsh("node-b", words).unwrap();
    }
    let dir = story.outside("node-b", "/var/lib/virtfleet/hostgone");
    for file in story.files("node-b") {
        fs::remove_file(dir.join(file)).unwrap();
    }
    story.end().await;
}

/// Each object has its Event in the story's namespace, which names the host and what is left there.
async fn is_told(story: &Story, expected: &[(&str, &str, &str)]) {
    until("an Event about each", async || {
        let events = story.api::<Event>().list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let is_about = |event: &&Event, kind: &str, name: &str| {
            let object = &event.involved_object;
            (object.kind.as_deref(), object.name.as_deref()) == (Some(kind), Some(name))
                && (event.reason.as_deref(), event.type_.as_deref()) == (Some("LetGo"), Some("Warning"))
        };
        for (kind, name, left) in expected {
            let event =
                events.iter().find(|event| is_about(event, kind, name)).ok_or(format!("none about {kind} {name}"))?;
            let note = event.message.clone().unwrap_or_default();
            assert!(note.contains("no Host node-b") && note.contains(left), "{note}");
        }
        Ok::<_, String>(())
    })
    .await;
}

/// The audit log has who deleted, who annotated and what, and who ended the waiting.
async fn is_audited(story: &Story, since: &Mark) {
    let rule = documented("- level: Request").join("\n");
    assert!(
        fs::read_to_string(story.run.dir.join("audit.yaml")).unwrap().contains(&rule),
        "the bed has the page's rule"
    );
    let controller = "system:serviceaccount:virtfleet-system:virtfleet-controller";
    let orphan = |write: &Write| write.body["metadata"]["annotations"]["virtfleet.dev/teardown"] == "Orphan";
    let released = |write: &Write| write.body.to_string().contains("/metadata/finalizers/");
    let has = |writes: &[Write], by: &str, verb: &str, object: (&str, &str), holds: &dyn Fn(&Write) -> bool| {
        let namespace = if object.0 == "hosts" { "" } else { &*story.namespace };
        let is = |write: &&Write| write.by == by && write.verb == verb && write.is_to(object.0, namespace, object.1);
        match writes.iter().filter(is).any(holds) {
            true => Ok(()),
            false => Err(format!("no {verb} of {object:?} by {by}")),
        }
    };
    until("who did it, in the audit log", async || {
        let writes = since.all().map_err(|error| error.to_string())?;
        has(&writes, "admin", "delete", ("hosts", "node-b"), &|_| true)?;
        has(&writes, controller, "patch", ("hosts", "node-b"), &released)?;
        for object in [("virtualmachines", "web"), ("storagevolumes", "store"), ("snapshots", "waits")] {
            has(&writes, "admin", "patch", object, &orphan)?;
            has(&writes, controller, "patch", object, &released)?;
        }
        // The one that no deletion had waited for.
        has(&writes, "admin", "patch", ("snapshots", "goes-along"), &orphan)
    })
    .await;
}
