//! What libvirt tells, turned into looks at the objects concerned.

use crate::context::{Context, HostFacts};
use crate::marks::Known;
use crate::snapshot::push_of_machine;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use libvirt::{DomainEvent, DomainState, Event, Link};
use libvirt_xml::{Capabilities, Mark, mark};
use std::collections::BTreeMap;
use std::sync::Arc;
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
            Event::Domain { uuid, name, kind } => domain(&context, &uuid, name, kind).await,
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
    let mut all = BTreeMap::new();
    for domain in context.libvirt.domains().await? {
        let mark = read_mark(context, &domain.uuid).await?;
        all.insert(domain.uuid, Known { name: domain.name, state: domain.state.as_str().into(), mark });
    }
    Ok(all)
}

async fn read_mark(context: &Context, uuid: &str) -> libvirt::Result<Option<Mark>> {
    let element = context.libvirt.metadata(uuid, mark::NAMESPACE).await?;
    Ok(element.and_then(|element| Mark::parse(&element, uuid).ok()))
}

/// The domain as it is after an event. A rename, and the undefinition of a domain that goes on running, are told as Undefined too.
async fn look(context: &Context, uuid: &str, name: &str, kind: &DomainEvent) -> libvirt::Result<Option<Known>> {
    let (name, state) = match kind {
        DomainEvent::Started | DomainEvent::Rebooted | DomainEvent::Agent { .. } => {
            (name.to_owned(), DomainState::Running)
        }
        DomainEvent::Defined | DomainEvent::Undefined | DomainEvent::Stopped | DomainEvent::Changed => {
            match context.libvirt.domains().await?.into_iter().find(|domain| domain.uuid == uuid) {
                None => return Ok(None),
                Some(domain) => (domain.name, domain.state),
            }
        }
    };
    let mark = read_mark(context, uuid).await?;
    Ok(Some(Known { name, state: state.as_str().into(), mark }))
}

async fn domain(context: &Context, uuid: &str, name: String, kind: DomainEvent) {
    let before = context.marks.owner(uuid);
    loop {
        match look(context, uuid, &name, &kind).await {
            Ok(known) => {
                context.marks.set(uuid, known);
                break;
            }
            // The connection broke: all is listed when it is back.
            Err(error) if *context.libvirt.link().borrow() != Link::Up => {
                return tracing::debug!("looking for domain {name}: {error}");
            }
            // Not knowing is no reason to forget whose it is.
            Err(error) => tracing::warn!("looking for domain {name}: {error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
    if matches!(kind, DomainEvent::Agent { .. } | DomainEvent::Rebooted | DomainEvent::Started) {
        context.guests.forget(uuid);
    }
    for owner in before.into_iter().chain(context.marks.owner(uuid)).filter(|owner| owner.cluster == context.cluster) {
        context.queues.machines.push(ObjectRef::new(&owner.name).within(&owner.namespace));
        push_of_machine(context, &owner.namespace, &owner.name, None);
    }
    context.host_changed.notify_one();
}
