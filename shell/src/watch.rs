//! Keeps a store of all objects of a kind, and tells of each change.
//!
//! All is listed again when the API server was away, when its history was put back (a watch would go deaf without an error), and every ten
//! minutes whatever happens.

use crate::history::History;
use crate::retry::random;
use futures::StreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher;
use kube::runtime::watcher::{Config, Event};
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
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Watches for ever.
pub async fn watch<K>(api: Api<K>, config: Config, history: History, mut writer: Writer<K>, on: impl Fn(Change<'_, K>))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let store = writer.as_reader();
    let mut rewritten = history.rewritten();
    let mut pause = FIRST_PAUSE;
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()));
        let mut relist = std::pin::pin!(tokio::time::sleep(RELIST.mul_f64(0.9 + 0.2 * random())));
        loop {
            let event = tokio::select! {
                () = &mut relist => break,
                Ok(()) = rewritten.changed() => break,
                event = events.next() => event,
            };
            match event {
                None => break,
                Some(Err(error)) => {
                    tracing::warn!("watching {}: {error}", K::plural(&()));
                    tokio::time::sleep(pause.mul_f64(0.5 + random())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    // What was missed is not told by a watch that goes on where this one was.
                    break;
                }
                Some(Ok(event)) => {
                    pause = FIRST_PAUSE;
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
