//! Every state of an object that the API server told, in order. Watches.

use super::Story;
use futures::StreamExt;
use kube::Api;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// What became of the objects of some kinds, until it is dropped.
pub struct History {
    namespace: String,
    states: Arc<Mutex<Vec<Value>>>,
    _watches: JoinSet<()>,
}

impl History {
    /// Begins with these kinds.
    pub async fn of(story: &Story, kinds: &[&str]) -> History {
        let states = Arc::<Mutex<Vec<Value>>>::default();
        let mut watches = JoinSet::new();
        for kind in kinds {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("virtfleet.dev", "v1alpha1", kind));
            let api = Api::<DynamicObject>::all_with(story.client.clone(), &resource);
            let list = api.list(&Default::default()).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
            let mut version = list.metadata.resource_version.unwrap_or_default();
            let states = states.clone();
            watches.spawn(async move {
                // The API server ends a watch after some minutes.
                while let Ok(stream) = api.watch(&WatchParams::default(), &version).await {
                    let mut stream = std::pin::pin!(stream);
                    while let Some(Ok(event)) = stream.next().await {
                        let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) =
                            event
                        else {
                            continue;
                        };
                        version = object.metadata.resource_version.clone().unwrap_or_default();
                        if let (Ok(mut states), Ok(state)) = (states.lock(), serde_json::to_value(object)) {
                            states.push(state);
                        }
                    }
                }
            });
        }
        History { namespace: story.namespace.clone(), states, _watches: watches }
    }

    /// The states of one object so far: of the story's namespace, or of none.
    pub fn states(&self, kind: &str, name: &str) -> Vec<Value> {
        let states = self.states.lock().map(|states| states.clone()).unwrap_or_default();
        let is_its = |state: &Value| {
            let (of, metadata) = (&state["kind"], &state["metadata"]);
            let here = metadata["namespace"].is_null() || metadata["namespace"] == self.namespace;
            here && of == kind && metadata["name"] == name
        };
        states.into_iter().filter(is_its).collect()
    }
}
