//! Events for users, when a condition turns and never otherwise.

use crds::Condition;
use crds::conditions::{Type, find};
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Writes Events.
pub struct Events(Recorder);

impl Events {
    /// As `controller` (a binary's name), on `instance` (a host's or a pod's name).
    pub fn new(client: kube::Client, controller: &str, instance: &str) -> Events {
        Events(Recorder::new(client, Reporter { controller: controller.into(), instance: Some(instance.into()) }))
    }

    /// Tells of something that somebody should look at and that no condition will show.
    pub async fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        let note = note.chars().take(1024).collect();
        self.publish(object, EventType::Warning, reason, Some(note)).await;
    }

    /// Tells that the object's readiness turned, if it did. An Event that cannot be written is no reason to stop.
    pub async fn turned<K: Resource<DynamicType = ()>>(&self, object: &K, before: &[Condition], after: &[Condition]) {
        let Some(now) = turn(before, after) else { return };
        let kind = if now.status == "True" || !grave(after) { EventType::Normal } else { EventType::Warning };
        self.publish(object, kind, &now.reason, Some(now.message.clone()).filter(|note| !note.is_empty())).await;
    }

    async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        note: Option<String>,
    ) {
        let (reason, action) = (reason.to_owned(), "Reconcile".to_owned());
        let event = Event { type_, reason, note, action, secondary: None };
        if let Err(error) = self.0.publish(&event, &object.object_ref(&())).await {
            tracing::debug!("an Event was not written: {error}");
        }
    }
}

/// The condition that turned: `Scheduled` or `Ready` with another status or reason than before.
fn turn<'a>(before: &[Condition], after: &'a [Condition]) -> Option<&'a Condition> {
    [Type::Ready, Type::Scheduled].into_iter().find_map(|kind| {
        let now = find(after, kind)?;
        let same = find(before, kind).is_some_and(|old| old.status == now.status && old.reason == now.reason);
        (!same).then_some(now)
    })
}

/// Whether somebody should look: nothing is under way that would mend it.
fn grave(conditions: &[Condition]) -> bool {
    find(conditions, Type::Reconciling).is_none()
}
