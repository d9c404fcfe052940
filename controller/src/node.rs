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
use std::sync::Arc;
use tokio::sync::mpsc;

/// Watches for ever. A Node that loses its label or goes keeps its Host: what runs there still does.
pub async fn keep(nodes: Api<Node>, context: Arc<Context>) {
    let (sender, mut changed) = mpsc::unbounded_channel();
    let (_, writer) = store();
    let labelled = Config::default().labels(&format!("{HOST_LABEL}=true"));
    let watching =
        watch(nodes, labelled, context.history.clone(), writer, move |change: Change<'_, Node>| match change {
            Change::Seen(node) => drop(sender.send((node.name_any(), node.labels().clone()))),
            Change::Gone(_) => {}
        });
    let making = async {
        while let Some((name, labels)) = changed.recv().await {
            let known = context.stores.hosts.state().into_iter().find(|host| host.name_any() == name);
            if known.is_some_and(|host| labels.iter().all(|(key, value)| host.labels().get(key) == Some(value))) {
                continue;
            }
            let body = json!({
                "apiVersion": Host::api_version(&()), "kind": Host::kind(&()),
                "metadata": {"name": name, "labels": labels}, "spec": {},
            });
            context.metrics.write("Host");
            let parameters = PatchParams::apply(MANAGER).force();
            let api = Api::<Host>::all(context.client.clone());
            if let Err(error) = api.patch(&name, &parameters, &Patch::Apply(&body)).await {
                tracing::warn!("making Host {name} of its Node: {error}");
            }
        }
    };
    tokio::join!(watching, making);
}
