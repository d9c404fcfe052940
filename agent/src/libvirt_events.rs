//! What libvirt tells, turned into looks at the objects concerned.

use crate::context::{Context, HostFacts};
use crate::marks::Known;
use crate::snapshot::push_of_machine;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use libvirt::{DomainEvent, DomainSummary, Event, Link};
use libvirt_xml::{Capabilities, Mark, mark};
use plan::snapshot::concerned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

const RETRY: Duration = Duration::from_secs(2);

/// Asks for a look at everything when libvirt stays away.
pub async fn miss(context: Arc<Context>) {
    let mut told = None;
    loop {
        tokio::time::sleep(RETRY / 4).await;
        let since = *context.away_since.lock();
        if since.is_some() && since != told && context.settles_until().is_none() {
            told = since;
            context.queues.machines.push_all(&context.stores.machines.state());
            context.queues.volumes.push_all(&context.stores.volumes.state());
            context.queues.snapshots.push_all(&context.stores.snapshots.state());
            context.host_changed.notify_one();
        }
    }
}

/// Listens for ever.
pub async fn listen(context: Arc<Context>, mut events: UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected => connected(&context).await,
            Event::Disconnected(_) => *context.away_since.lock() = Some(Timestamp::now()),
            Event::Domain { uuid, kind, name: _ } => domain(&context, &uuid, kind).await,
            Event::Pool(name) => context.queues.pools.push(ObjectRef::new(&name)),
        }
    }
}

/// Looks at everything: what happened before was not told.
async fn connected(context: &Context) {
    loop {
        match list(context).await {
            Ok(all) => {
                context.marks.replace(all);
                context.listed.store(true, Ordering::Relaxed);
                *context.away_since.lock() = None;
                break;
            }
            Err(error) => tracing::warn!("listing what is on the host: {error}"),
        }
        if *context.libvirt.link().borrow() != Link::Up {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
    context.queues.pools.push_all(&context.stores.pools.state());
    context.queues.volumes.push_all(&context.stores.volumes.state());
    context.queues.snapshots.push_all(&context.stores.snapshots.state());
    context.queues.machines.push_all(&context.stores.machines.state());
    context.host_changed.notify_one();
}

async fn list(context: &Context) -> libvirt::Result<BTreeMap<String, Known>> {
    let capabilities = context.libvirt.capabilities().await?;
    match Capabilities::parse(&capabilities) {
        Ok(capabilities) => {
            let (versions, node) = (context.libvirt.versions().await?, context.libvirt.node().await?);
            *context.facts.lock() = Some(HostFacts { versions, node, capabilities });
        }
        Err(error) => tracing::error!("reading libvirt's capabilities: {error}"),
    }
    let all = context.libvirt.domains_with(mark::NAMESPACE).await?;
    Ok(all.into_iter().map(|(domain, element)| (domain.uuid.clone(), known(domain, element))).collect())
}

fn known(domain: DomainSummary, element: Option<String>) -> Known {
    let mark = element.and_then(|element| Mark::parse(&element, &domain.uuid).ok());
    Known { name: domain.name, state: domain.state.as_str().into(), mark }
}

/// The domain as it is after an event. A rename, and the undefinition of a domain that goes on running, are told as Undefined too.
async fn domain(context: &Context, uuid: &str, kind: DomainEvent) {
    let before = context.marks.owner(uuid);
    loop {
        match context.libvirt.glance(uuid, mark::NAMESPACE).await {
            Ok(seen) => {
                context.marks.set(uuid, seen.map(|(domain, element)| known(domain, element)));
                break;
            }
            // The connection broke: all is listed when it is back.
            Err(error) if *context.libvirt.link().borrow() != Link::Up => {
                return tracing::debug!("looking at a domain: {error}");
            }
            // Not knowing is no reason to forget whose it is.
            Err(error) => tracing::warn!("looking at a domain: {error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
    if matches!(kind, DomainEvent::Agent { .. } | DomainEvent::Rebooted | DomainEvent::Started) {
        context.guests.forget(uuid);
    }
    for owner in before.into_iter().chain(context.marks.owner(uuid)).filter(|owner| owner.cluster == context.cluster) {
        context.queues.machines.push(ObjectRef::new(&owner.name).within(&owner.namespace));
        // Its snapshots go with its definition; nothing else that is told here changes one that is there.
        let all = kind == DomainEvent::Undefined;
        push_of_machine(context, &owner.namespace, &owner.name, |snapshot| all || concerned::waits(snapshot));
    }
    context.host_changed.notify_one();
}
