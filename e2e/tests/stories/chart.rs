//! The chart itself: what it refuses, that the API server takes all that it can render, and that installing it again changes nothing.

use e2e::install;
use e2e::shell::output;
use e2e::story::{Story, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

const NAMESPACE: &str = "--namespace=virtfleet-system";

/// `kubectl` for manifests that name their namespaces.
fn kubectl(story: &Story, words: &[&str]) -> String {
    let config = format!("--kubeconfig={}", story.run.kubeconfig("admin").display());
    let program = story.run.cluster_program("kubectl");
    output(&[&[program.as_str(), &config], words].concat()).unwrap()
}

fn chart(story: &Story) -> String {
    story.run.checkout.join("charts/virtfleet").display().to_string()
}

/// Every setting that adds or changes something.
fn everything() -> Value {
    let image = |name: &str| {
        json!({"repository": format!("registry.example/{name}"), "tag": "1", "pullPolicy": "Always",
        "digest": format!("sha256:{}", "0".repeat(64))})
    };
    let pod = json!({"priorityClassName": "", "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}}, "podLabels": {"team": "x"}, "podAnnotations": {"note": "y"}, "logFormat": "text",
        "resources": {"limits": {"cpu": "1"}}});
    let own = |name: &str, more: Value| {
        let mut all = pod.clone();
        all["image"] = image(name);
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    json!({
        "global": {"whatever": 1},
        "imagePullSecrets": [{"name": "registry"}],
        "listenAddress": "[::]",
        "controller": own("controller", json!({"replicas": 3, "leaseDurationSeconds": 30, "hostLeaseSeconds": 60})),
        "agent": own("agent", json!({"libvirtUri": "qemu:///system?socket=/run/libvirt/virtqemud-sock", "poolRoots": ["/srv/a", "/srv/b"],
            "importAllow": ["10.0.0.0/8", "fd00::1"], "forceEmulation": true, "seLinuxOptions": {"type": "spc_t"},
            "updateStrategy": {"type": "OnDelete"}, "terminationGracePeriodSeconds": 5})),
        "networkPolicy": {"enabled": true, "metricsFrom": [{"namespaceSelector": {}}], "apiServerPorts": [6443]},
        "monitoring": {"podMonitor": {"enabled": true, "labels": {"release": "p"}}, "rules": {"enabled": true}, "dashboard": {"enabled": true}},
    })
}

#[tokio::test]
async fn the_chart_refuses_what_it_does_not_know() {
    let story = Story::new("chartvalues").await;
    let chart = chart(&story);
    story.helm(&["lint", "--strict", &chart]).unwrap();
    for wrong in [
        "agnet.enabled=true",
        "agent.poolRoot=/srv",
        "agent.poolRoots={srv}",
        "agent.image.tags=1",
        "controller.image.digest=1",
        "controller.replicas=two",
        "agent.importAllow={example.org}",
        "monitoring.rules.on=true",
        "networkPolicy.apiServerPorts={}",
    ] {
        let said = story.helm(&["template", "v", &chart, "--set", wrong]).unwrap_err().to_string();
        assert!(said.contains("schema"), "{wrong}: {said}");
    }
    story.end().await;
}

#[tokio::test]
async fn the_api_server_takes_all_that_the_chart_renders() {
    let story = Story::new("chartrender").await;
    let values = story.run.dir.join("everything.json");
    fs::write(&values, everything().to_string()).unwrap();
    let render = |more: &[&str]| {
        let (chart, values) = (chart(&story), format!("--values={}", values.display()));
        let mut words = vec!["template", "virtfleet", &chart, NAMESPACE, &values];
        words.extend(more);
        story.helm(&words).unwrap()
    };
    let file = story.run.dir.join("everything.yaml");
    // The Prometheus operator's kinds are not in the bed: that they are YAML of the right kind is all that is seen here.
    let whole = render(&[]);
    let documents = serde_yaml_ng::Deserializer::from_str(&whole);
    let documents: Vec<Value> = documents.map(|one| serde::Deserialize::deserialize(one).unwrap()).collect();
    let of = |kind: &str| documents.iter().find(|one| one["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    assert!(of("PrometheusRule")["spec"]["groups"][0]["rules"].as_array().unwrap().len() >= 4);
    assert_eq!(of("PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    let dashboard = of("ConfigMap")["data"]["virtfleet.json"].as_str().unwrap();
    serde_json::from_str::<Value>(dashboard).unwrap();
    let capabilities = &of("DaemonSet")["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(*capabilities, json!({"drop": ["ALL"], "add": ["DAC_OVERRIDE"]}));
    let volumes = of("DaemonSet")["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let mut paths: Vec<_> = volumes.iter().filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/run/libvirt", "/srv/a", "/srv/b", "/var/log/libvirt/virtfleet"], "nothing else of the host");

    fs::write(&file, render(&["--set=monitoring.podMonitor.enabled=false,monitoring.rules.enabled=false"])).unwrap();
    let file = file.display().to_string();
    let flags = ["--dry-run=server", "--server-side", "--validate=strict", "--force-conflicts", "--field-manager=helm"];
    let said = kubectl(&story, &[&["apply", "-f", &file][..], &flags].concat());
    for name in ["deployment.apps/virtfleet-controller", "daemonset.apps/virtfleet-agent", "poddisruptionbudget.policy"]
    {
        assert!(said.contains(name), "{name} is not in\n{said}");
    }
    story.end().await;
}

#[tokio::test]
async fn a_second_upgrade_changes_nothing() {
    let story = Story::alone("chartupgrade").await;
    let chart = chart(&story);
    // No kubelet runs what it installs: there is nothing to wait for.
    let upgrade = || story.helm(&["upgrade", "virtfleet", &chart, NAMESPACE, "--reset-values"]).unwrap();
    upgrade();
    let before = settled(&story).await;
    assert!(before.keys().any(|object| object.starts_with("DaemonSet/")), "{before:?}");
    upgrade();
    assert_eq!(versions(&story), before);
    install::chart(&story.run, "virtfleet", &[install::NO_PODS]).unwrap();
    assert!(!versions(&story).keys().any(|object| object.starts_with("Deployment/")), "the bed's own are its own");
    story.end().await;
}

/// What the release consists of, once Kubernetes' own controllers have looked at it.
async fn settled(story: &Story) -> BTreeMap<String, String> {
    until("the deployment's replicas", async || {
        let pods =
            story.kubectl(&["get", "pods", NAMESPACE, "-l", "app.kubernetes.io/component=controller", "-o", "name"]);
        pods.and_then(|pods| if pods.lines().count() == 2 { Ok(()) } else { Err(pods.into()) })
    })
    .await;
    versions(story)
}

/// The version of each object; of one whose status others write, its spec's.
fn versions(story: &Story) -> BTreeMap<String, String> {
    let file = story.run.dir.join("installed.yaml");
    fs::write(&file, story.helm(&["get", "manifest", "virtfleet", NAMESPACE]).unwrap()).unwrap();
    let list = kubectl(story, &["get", "-f", &file.display().to_string(), "-o", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let version = |object: &Value| {
        let meta = &object["metadata"];
        let name = format!("{}/{}", object["kind"].as_str().unwrap(), meta["name"].as_str().unwrap());
        let version = if object.get("status").is_some() { &meta["generation"] } else { &meta["resourceVersion"] };
        (name, version.to_string())
    };
    list["items"].as_array().unwrap().iter().map(version).collect()
}
