//! A fleet in which nothing happens writes nothing but Leases, by the API server's own audit log.

use e2e::story::Story;
use serde_json::{Value, json};
use std::time::Duration;

fn writes(story: &Story) -> Vec<String> {
    let log = std::fs::read_to_string(story.run.audit_log()).unwrap();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = entries.filter(|entry| {
        let who = entry["user"]["username"].as_str().unwrap_or_default();
        let ours = who.starts_with("system:serviceaccount:virtfleet-");
        ours && entry["objectRef"]["resource"] != "leases"
    });
    ours.map(|entry| format!("{} {} by {}", entry["verb"], entry["requestURI"], entry["user"]["username"])).collect()
}

#[tokio::test]
async fn an_idle_fleet_writes_nothing_but_leases() {
    let story = Story::alone("idle").await;
    for name in ["a", "b", "c"] {
        let template = json!({"spec": {"storagePool": "idle", "capacity": "1Mi"}});
        story.apply(story.bare(name, json!({"disks": [{"name": "d", "volumeTemplate": template}]}))).await.unwrap();
    }
    for name in ["a", "b", "c"] {
        story.vm_is(name, "True", "Running").await;
    }
    story.take("before", "a", json!({})).await;
    // The last coalesced Host status goes out within 10 s; what comes after a quiet spell of that length is no echo.
    let mut before = writes(&story).len();
    for spell in 1.. {
        tokio::time::sleep(Duration::from_secs(11)).await;
        let all = writes(&story);
        if all.len() == before {
            break;
        }
        assert!(spell < 10, "it does not come to rest: {:?}", &all[before..]);
        before = all.len();
    }
    // Longer than the look for snapshots that others made.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let all = writes(&story);
    assert_eq!(all.len(), before, "{:?}", &all[before..]);
    assert!(before > 10, "the log does not tell our writes");
    story.end().await;
}
