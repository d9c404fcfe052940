//! A Host for each Node labelled `virtfleet.dev/host=true`, with the Node's labels on it.

use crate::context::{Context, MANAGER};
use crds::{HOST_LABEL, Host};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::store;
use kube::runtime::watcher::Config;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use shell::watch::{Change, watch};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const RETRY: Duration = Duration::from_secs(5);

/// Watches for ever. A Node that loses its label or goes keeps its Host: what runs there still does.
pub async fn keep(nodes: Api<Node>, context: Arc<Context>) {
    let (sender, mut changed) = mpsc::unbounded_channel();
    let again = sender.clone();
    let (_, writer) = store();
    let labelled = Config::default().labels(&format!("{HOST_LABEL}=true"));
    let watching =
        watch(nodes, labelled, context.history.clone(), writer, move |change: Change<'_, Node>| match change {
            Change::Seen(node) => drop(sender.send((node.name_any(), node.labels().clone()))),
            Change::Gone(_) => {}
        });
    let making = async {
        let mut applied: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        while let Some((name, labels)) = changed.recv().await {
            let known = context.stores.hosts.state().into_iter().find(|host| host.name_any() == name);
            let has = |host: Arc<Host>| labels.iter().all(|(key, value)| host.labels().get(key) == Some(value));
            // A label that the Node lost is still on the Host: only what was applied last tells.
            if known.is_some_and(has) && applied.get(&name) == Some(&labels) {
                continue;
            }
            let body = json!({
                "apiVersion": Host::api_version(&()), "kind": Host::kind(&()),
                "metadata": {"name": name, "labels": labels}, "spec": {},
            });
            context.metrics.write("Host");
            let parameters = PatchParams::apply(MANAGER).force();
            let api = Api::<Host>::all(context.client.clone());
            match api.patch(&name, &parameters, &Patch::Apply(&body)).await {
                Ok(_) => drop(applied.insert(name, labels)),
                Err(error) => {
                    tracing::warn!("making Host {name} of its Node: {error}");
                    let again = again.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(RETRY).await;
                        drop(again.send((name, labels)));
                    });
                }
            }
        }
    };
    tokio::join!(watching, making);
}
