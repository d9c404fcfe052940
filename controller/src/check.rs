//! What an administrator and `helm test` ask: is there a leader, and is every Host ready? Reads only.

use crate::election;
use crds::conditions::{Type, find};
use crds::{Condition, Host};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::error::Error;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);

/// Looks until all is well, for a minute at most.
///
/// # Errors
/// What is wrong then, with what to do.
pub async fn check(client: &Client, namespace: &str) -> Result<String, Box<dyn Error>> {
    let mut wrong: Box<dyn Error> = "the API server did not answer".into();
    let look = async {
        let leader = loop {
            match leader(client, namespace).await {
                Ok(leader) => break leader,
                Err(error) => wrong = error,
            }
            tokio::time::sleep(LOOK).await;
        };
        loop {
            match hosts(client).await {
                Ok(count) => return format!("{leader} leads; hosts ready: {count}"),
                Err(error) => wrong = error,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(well) => Ok(well),
        Err(_) => Err(wrong),
    }
}

/// Who leads: the Lease has a holder that renews it. No clock is compared with another machine's.
async fn leader(client: &Client, namespace: &str) -> Result<String, Box<dyn Error>> {
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let read = async || Ok::<_, kube::Error>(leases.get(election::NAME).await?.spec.unwrap_or_default());
    let first = read().await?;
    for _ in 0..first.lease_duration_seconds.unwrap_or_default() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = read().await?;
        if now.renew_time != first.renew_time {
            return Ok(now.holder_identity.unwrap_or_default());
        }
    }
    Err("no controller leads: see the logs of deployment virtfleet-controller".into())
}

/// How many Hosts there are, if all are ready.
async fn hosts(client: &Client) -> Result<usize, Box<dyn Error>> {
    let hosts = Api::<Host>::all(client.clone()).list(&ListParams::default()).await?.items;
    let lines: Vec<_> = hosts.iter().filter_map(trouble).collect();
    if lines.is_empty() { Ok(hosts.len()) } else { Err(lines.join("\n").into()) }
}

fn trouble(host: &Host) -> Option<String> {
    let conditions = host.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let words = |ready: &Condition| format!("host {}: {}: {}", host.name_any(), ready.reason, ready.message);
    match find(conditions, Type::Ready) {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(words(ready)),
        None => Some(format!("host {}: its agent has not reported yet", host.name_any())),
    }
}
