//! Keeps a store of all objects of a kind, and tells of each change.
//!
//! A watch can go deaf without an error (an API server accepts a resourceVersion of the future after etcd was restored): every ten
//! minutes all is listed again.

use crate::retry::random;
use futures::StreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// What happened to an object.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// It is there, new or other than before; or all was listed again.
    Seen(&'a K),
    /// It is gone, or no longer selected.
    Gone(&'a K),
}

const RELIST: Duration = Duration::from_secs(600);

/// Watches for ever.
pub async fn watch<K>(api: Api<K>, config: Config, mut writer: Writer<K>, on: impl Fn(Change<'_, K>))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let store = writer.as_reader();
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()).default_backoff());
        let mut relist = std::pin::pin!(tokio::time::sleep(RELIST.mul_f64(0.9 + 0.2 * random())));
        loop {
            let event = tokio::select! {
                () = &mut relist => break,
                event = events.next() => event,
            };
            match event {
                None => break,
                Some(Err(error)) => tracing::warn!("watching {}: {error}", K::plural(&())),
                Some(Ok(event)) => {
                    writer.apply_watcher_event(&event);
                    match &event {
                        Event::Apply(object) => on(Change::Seen(object)),
                        Event::Delete(object) => on(Change::Gone(object)),
                        // The store holds what was listed only from here on.
                        Event::InitDone => store.state().iter().for_each(|object| on(Change::Seen(object))),
                        Event::Init | Event::InitApply(_) => {}
                    }
                }
            }
        }
    }
}
