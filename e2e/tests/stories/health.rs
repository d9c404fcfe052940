//! What the tools that wait for objects make of ours, in each phase: kstatus (Helm, Flux, kpt) by its own library, Argo CD by the script in
//! `docs/gitops`, run by Lua.

use crds::{StorageVolume, VirtualMachine};
use e2e::story::history::History;
use e2e::story::{Story, manifest};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

const KINDS: [&str; 5] = ["Host", "StoragePool", "StorageVolume", "VirtualMachine", "Snapshot"];

#[tokio::test]
async fn every_phase_is_understood_by_kstatus_and_argo_cd() {
    let story = Story::new("health").await;
    let history = History::of(&story, &KINDS).await;
    story.apply(manifest("Host", "health", json!({}))).await.unwrap();
    story.apply(manifest("StoragePool", "health-2", json!({"dir": {"path": "/nowhere/allowed"}}))).await.unwrap();
    let dir = json!({"dir": {"path": "/var/lib/virtfleet/health-3"}});
    story.apply(manifest("StoragePool", "health-3", dir)).await.unwrap();

    // A life: imported, started, changed, snapshotted, stopped, started, deleted.
    let source = json!({"http": story.image("slow", "guest.qcow2")});
    story.apply(story.volume_manifest("root", json!({"host": "node-a", "source": source}))).await.unwrap();
    let disks = json!([{"name": "root", "volume": "root"}]);
    story.apply(story.bare("web", json!({"disks": disks}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    story.patch::<StorageVolume>("root", json!({"spec": {"capacity": "80Mi"}})).await;
    story.volume_is("root", "True", "Ready").await;
    story.take("first", "web", json!({})).await;
    for (power, reason) in [("Stopped", "Stopped"), ("Running", "Running")] {
        story.patch::<VirtualMachine>("web", json!({"spec": {"powerState": power}})).await;
        story.vm_is("web", "True", reason).await;
    }
    // What cannot be.
    let small = json!({"host": "node-a", "capacity": "1Mi", "source": {"http": story.image("", "guest.qcow2")}});
    story.apply(story.volume_manifest("small", small)).await.unwrap();
    story.volume_is("small", "False", "CapacityTooSmall").await;
    story
        .kubectl(&["wait", "--for=jsonpath={.status.observedGeneration}=1", "--timeout=60s", "pool/health-2"])
        .unwrap();
    story.empty().await;
    // As long as it is there, all pools wait for its agent.
    story.kubectl(&["delete", "host/health"]).unwrap();
    story.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pool/health-3"]).unwrap();
    story.kubectl(&["delete", "pool/health-2", "pool/health-3"]).unwrap();

    let script = argo_script(&story);
    let mut seen = Vec::new();
    for (kind, name) in [
        ("Host", "health"),
        ("StoragePool", "health-2"),
        ("StoragePool", "health-3"),
        ("StorageVolume", "root"),
        ("StorageVolume", "small"),
        ("VirtualMachine", "web"),
        ("Snapshot", "first"),
    ] {
        let mut told: Vec<(String, String)> = Vec::new();
        for state in history.states(kind, name) {
            let kstatus = kstatus(&story, &state);
            let wanted = wanted(&state);
            assert_eq!(kstatus, wanted, "{kind} {name}: {state:#}");
            let argo = argo(&script, &state);
            let fits: &[&str] = match kstatus.as_str() {
                "Current" => &["Healthy"],
                "InProgress" => &["Progressing", "Degraded"],
                "Failed" => &["Degraded"],
                _ => &["Progressing"],
            };
            assert!(fits.contains(&argo.as_str()), "{kind} {name}: {argo} for {kstatus}: {state:#}");
            if told.last() != Some(&(kstatus.clone(), argo.clone())) {
                told.push((kstatus, argo));
            }
        }
        let words: Vec<_> = told.iter().map(|(kstatus, _)| kstatus.as_str()).collect();
        println!("{kind} {name}: {}", words.join(" → "));
        assert_eq!(words.first(), Some(&"InProgress"), "{kind} {name}: nobody had looked at it");
        seen.push((name, words.join(" ")));
    }
    let of =
        |name: &str| seen.iter().filter(|(of, _)| *of == name).map(|(_, words)| words.as_str()).collect::<Vec<_>>();
    // It is tried again all the same, sooner when its agent is killed meanwhile.
    assert!(
        of("small")[0].starts_with("InProgress Failed") && !of("small")[0].contains("Current"),
        "{:?}",
        of("small")
    );
    assert!(of("first")[0].starts_with("InProgress Current"), "{:?}", of("first"));
    // Running, off and on again: it is in progress in between, never Current by an old word.
    assert!(of("web")[0].starts_with("InProgress Current InProgress Current InProgress Current"), "{:?}", of("web"));
    assert!(of("root")[0].contains("Current InProgress Current"), "{:?}", of("root"));
    story.end().await;
}

/// What a state is, by the rule that our conditions follow.
fn wanted(state: &Value) -> String {
    let is = |kind: &str| {
        let conditions = state["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
    };
    let word = if !state["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if state["status"]["observedGeneration"] != state["metadata"]["generation"] || is("Reconciling") {
        "InProgress"
    } else if is("Stalled") {
        "Failed"
    } else if is("Ready") {
        "Current"
    } else {
        "InProgress"
    };
    word.into()
}

/// The first word of what the library says.
fn kstatus(story: &Story, state: &Value) -> String {
    let said = told(&[&story.run.cluster_program("kstatus")], &state.to_string());
    said.split_whitespace().next().unwrap_or_default().to_owned()
}

/// The script as it stands in the ConfigMap for users.
fn argo_script(story: &Story) -> String {
    let file = std::fs::read_to_string(story.run.checkout.join("docs/gitops/argocd-cm.yaml")).unwrap();
    let map: Value = serde_yaml_ng::from_str(&file).unwrap();
    let kinds: Value = serde_yaml_ng::from_str(map["data"]["resource.customizations"].as_str().unwrap()).unwrap();
    kinds["virtfleet.dev/*"]["health.lua"].as_str().unwrap().to_owned()
}

fn argo(script: &str, state: &Value) -> String {
    let program = format!("obj = {}\nlocal function health()\n{script}\nend\nprint(health().status)", lua(state));
    told(&["lua5.1", "-"], &program).trim().to_owned()
}

/// A value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("[{}] = {}", lua_text(key), lua(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => lua_text(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn lua_text(text: &str) -> String {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:03}")).collect();
    format!("\"{escaped}\"")
}

/// What a program says to an input.
fn told(argv: &[&str], input: &str) -> String {
    let child = Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{}: {error}", argv[0]));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{} failed", argv[0]);
    String::from_utf8(output.stdout).unwrap()
}
