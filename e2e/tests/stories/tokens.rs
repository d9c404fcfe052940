//! How an agent becomes its host's account: in a pod, and on a host outside the cluster. Real tokens, the real agent.

use crds::{HOSTS_NAMESPACE, Host};
use e2e::shell::output;
use e2e::story::{Story, token_of, until};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const HOUR: i64 = 3600;
const MONTH: i64 = 30 * 24 * HOUR;
const AGENTS: (&str, &str) = ("virtfleet-system", "virtfleet-agent");

fn account(host: &str) -> (&str, &str) {
    (HOSTS_NAMESPACE, host)
}

/// The API server's answer to a request for a token: `200`, or what it refused with.
async fn code(client: &Client, of: (&str, &str), seconds: i64) -> u16 {
    match token_of(client, of, None, seconds).await {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    }
}

/// Whether the API server takes the token at all.
async fn is_known(client: &Client) -> bool {
    match Api::<Host>::all(client.clone()).list(&ListParams::default()).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 401 => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_pod_becomes_its_own_nodes_host_and_no_other() {
    let story = Story::alone("podtoken").await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "metal-8"}});
    story.apply(node).await.unwrap();
    story.make_host("metal-8").await;
    let pod = story.agents_pod("metal-8").await;
    let bound = token_of(&story.client, AGENTS, Some(&pod), HOUR).await.unwrap();
    let (in_pod, unbound) =
        (story.with_token(&bound), story.with_token(&token_of(&story.client, AGENTS, None, HOUR).await.unwrap()));

    assert_eq!(code(&in_pod, account("metal-8"), HOUR).await, 200);
    assert_eq!(code(&in_pod, account("metal-8"), HOUR + 1).await, 403, "longer than an hour");
    assert_eq!(code(&in_pod, account("node-a"), HOUR).await, 403, "another host's");
    assert_eq!(code(&in_pod, AGENTS, HOUR).await, 403, "its own");
    assert_eq!(code(&in_pod, ("virtfleet-system", "virtfleet-controller"), HOUR).await, 403);
    assert_eq!(code(&unbound, account("metal-8"), HOUR).await, 403, "a token that names no node");
    let hosts = Api::<Host>::all(in_pod.clone()).list(&ListParams::default()).await;
    assert!(hosts.is_err_and(|error| e2e_code(&error) == 403), "a pod's account reads nothing");

    // What a thief would take from the agent's memory.
    let stolen = token_of(&in_pod, account("metal-8"), None, HOUR).await.unwrap();
    let thief = story.with_token(&stolen);
    assert!(is_known(&thief).await);
    assert_eq!(code(&thief, account("metal-8"), HOUR).await, 403, "it cannot be renewed");

    let agent = story.agent_in_pod("metal-8", &bound).unwrap();
    story.host_is("metal-8", "True").await;
    story.end_host("metal-8").await;
    until("the end of the stolen token", async || if is_known(&thief).await { Err("it works") } else { Ok(()) }).await;

    // The account is made anew with the Host: the agent notices that its token is none any more.
    story.make_host("metal-8").await;
    story.host_is("metal-8", "True").await;
    assert!(!is_known(&thief).await);

    drop(agent);
    story.end_host("metal-8").await;
    let pods = Api::<Pod>::namespaced(story.client.clone(), AGENTS.0);
    pods.delete(&pod, &DeleteParams::default().grace_period(0)).await.unwrap();
    until("the end of the pod's token", async || if is_known_at_all(&in_pod).await { Err("it works") } else { Ok(()) })
        .await;
    Api::<Node>::all(story.client.clone()).delete("metal-8", &DeleteParams::default()).await.unwrap();
    story.end().await;
}

fn e2e_code(error: &kube::Error) -> u16 {
    if let kube::Error::Api(status) = error { status.code } else { 0 }
}

/// As [`is_known`], for an account that may read nothing.
async fn is_known_at_all(client: &Client) -> bool {
    let error = Api::<Host>::all(client.clone()).list(&ListParams::default()).await.unwrap_err();
    e2e_code(&error) != 401
}

#[tokio::test]
async fn an_agent_outside_renews_the_token_it_was_given() {
    let story = Story::alone("outside").await;
    story.make_host("edge-9").await;
    let controller = story.run.dir.join("bin/virtfleet-controller").display().to_string();
    let admin = format!("--kubeconfig={}", story.run.kubeconfig("admin").display());
    let printed = output(&[controller.as_str(), "host-kubeconfig", "edge-9", &admin]).unwrap();
    let kubeconfig = story.run.kubeconfig("edge-9");
    fs::write(&kubeconfig, &printed).unwrap();
    let first = serde_json::from_str::<Value>(&printed).unwrap()["users"][0]["user"]["token"].clone();
    let first = story.with_token(first.as_str().unwrap());
    assert_eq!(code(&first, account("edge-9"), MONTH).await, 200);
    assert_eq!(code(&first, account("edge-9"), MONTH + 1).await, 403, "longer than a month");
    assert_eq!(code(&first, account("node-a"), HOUR).await, 403, "another host's");
    assert_eq!(code(&first, AGENTS, HOUR).await, 403, "the pods'");

    let (agent, file) = story.agent_outside("edge-9", &kubeconfig).unwrap();
    story.host_is("edge-9", "True").await;
    let renewed = until("a token of its own", async || {
        let token = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if printed.contains(&token) { Err("it is the kubeconfig's".to_owned()) } else { Ok(token) }
    })
    .await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let renewed = story.with_token(&renewed);
    assert!(is_known(&renewed).await);

    // It comes back with what it keeps: the kubeconfig's own token may be long over.
    drop(agent);
    let mut without: Value = serde_json::from_str(&printed).unwrap();
    without["users"][0]["user"] = json!({});
    fs::write(&kubeconfig, without.to_string()).unwrap();
    let kept = fs::read_to_string(&file).unwrap();
    let (agent, _) = story.agent_outside("edge-9", &kubeconfig).unwrap();
    until("the token after", async || {
        let token = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if token == kept { Err("the one before".to_owned()) } else { Ok(()) }
    })
    .await;

    // Its Host's end is the end of all its tokens and of the right to renew.
    story.end_host("edge-9").await;
    for token in [&first, &renewed] {
        until("the end of its tokens", async || if is_known(token).await { Err("it works") } else { Ok(()) }).await;
    }
    let bindings = Api::<RoleBinding>::namespaced(story.client.clone(), HOSTS_NAMESPACE);
    until("the end of its right", async || {
        let left = bindings.get_opt("virtfleet-host-token.edge-9").await.unwrap();
        left.map_or(Ok(()), |_| Err("it is there"))
    })
    .await;
    drop(agent);
    let leases = Api::<Lease>::namespaced(story.client.clone(), HOSTS_NAMESPACE);
    assert!(leases.get_opt("edge-9").await.unwrap().is_none(), "a renewal on its way made it again");
    story.end().await;
}
