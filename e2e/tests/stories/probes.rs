//! Probes and metrics of the controller, from outside; the agents' are inside their hosts.

use e2e::shell::output;
use e2e::story::{Story, until};
use std::collections::BTreeSet;
use std::fs;

#[tokio::test]
async fn the_controller_answers_probes_and_counts_its_work() {
    let story = Story::new("probes").await;
    story.apply(story.bare("web", serde_json::json!({}))).await.unwrap();
    story.vm_is("web", "True", "Running").await;
    let url = format!("http://{}:9190", story.run.address());
    let client = reqwest::Client::new();
    let get = async |path: &str| client.get(format!("{url}{path}")).send().await.unwrap().text().await.unwrap();
    assert_eq!((get("/livez").await, get("/readyz").await), ("ok\n".into(), "ok\n".into()));
    let metrics = get("/metrics").await;
    for line in [
        "virtfleet_reconcile_total{kind=\"virtualmachine\",result=\"ok\"}",
        "virtfleet_api_writes_total{kind=\"virtualmachine\"}",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    // The agent's, from within its host: a shell is all that is needed there.
    let pid = story.pid("agent-node-a").unwrap().to_string();
    let agents = until("the agent's metrics", async || {
        let script = "exec 3<>/dev/tcp/127.0.0.1/9180; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
        let text = output(&["nsenter", "-t", &pid, "-n", "bash", "-c", script])?;
        text.contains("virtfleet_libvirt_calls{call=\"virDomainGetXMLDesc\"}")
            .then_some(text.clone())
            .ok_or::<e2e::Error>(text.into())
    })
    .await;
    // What the chart's alerts and dashboard ask for is there.
    let told = metrics + &agents;
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = fs::read_to_string(story.run.checkout.join("charts/virtfleet").join(file)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked: BTreeSet<_> = words.filter(|word| word.starts_with("virtfleet_")).collect();
        assert!(asked.len() >= 3, "{asked:?}");
        for name in asked {
            assert!(told.contains(&format!("\n{name}{{")), "{file}: nobody tells {name}");
        }
    }
    story.end().await;
}
