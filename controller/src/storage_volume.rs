//! A StorageVolume: who uses it, who may write, where it lies, and how it goes.

use crate::context::{Context, MANAGER};
use crate::stores::host_of_volume;
use crate::{finalizer, import_secret, teardown};
use crds::storage_volume::{StorageVolume, StorageVolumeStatus};
use crds::{Teardown, TeardownPolicy};
use jiff::Timestamp;
use kube::{Api, ResourceExt};
use plan::placement::matches;
use plan::storage_volume::binding::{self, Summary, Trouble};
use plan::teardown::Next;
use shell::Error;
use shell::retry::Case;
use shell::status::{apply, beside};
use std::sync::Arc;

/// One pass.
pub async fn pass(volume: Arc<StorageVolume>, context: Arc<Context>) -> Result<Case, Error> {
    let api = beside(&context.client, &*volume);
    if volume.metadata.deletion_timestamp.is_some() {
        return go(&context, &api, &volume).await;
    }
    let volume =
        if finalizer::is_on(&*volume) { volume } else { Arc::new(finalizer::put(&context, &api, &*volume).await?) };
    let (wanted, summary) = decide(&context, &volume, passed_down(&volume));
    // Before the binding is told: the host finds it when it begins.
    let awaited = import_secret::keep(&context, &volume, wanted.host.as_deref()).await;
    write(&context, &api, &volume, &wanted, summary).await?;
    Ok(if host_of_volume(&volume).is_some() && !awaited? { Case::Converged } else { Case::Dependency })
}

/// Writes the controller's whole part of the status.
///
/// # Errors
/// The API server's answer.
pub async fn report(
    context: &Context,
    api: &Api<StorageVolume>,
    volume: &StorageVolume,
    teardown: Option<Teardown>,
) -> Result<(), Error> {
    let (wanted, summary) = decide(context, volume, teardown);
    write(context, api, volume, &wanted, summary).await
}

fn decide(context: &Context, volume: &StorageVolume, teardown: Option<Teardown>) -> (StorageVolumeStatus, Summary) {
    let machines = context.stores.machines.state();
    let beside = machines.iter().filter(|vm| vm.namespace() == volume.namespace()).map(|vm| &**vm);
    let binding = binding::binding(volume, beside);
    let trouble = trouble(context, volume, binding.host.as_deref());
    let lost = binding.host.as_deref().is_some_and(|host| context.is_lost(host) || !context.is_known(host));
    binding::status(volume, &binding, trouble.as_ref(), teardown, lost, Timestamp::now())
}

async fn write(
    context: &Context,
    api: &Api<StorageVolume>,
    volume: &StorageVolume,
    wanted: &StorageVolumeStatus,
    summary: Summary,
) -> Result<(), Error> {
    let stored = volume.status.clone().unwrap_or_default();
    let ours = binding::controllers(&stored, summary);
    if apply(api, MANAGER, volume, (&ours, wanted), &context.metrics).await? {
        context.events.turned(volume, &stored.conditions, &wanted.conditions).await;
    }
    Ok(())
}

/// Why the volume cannot be bound.
fn trouble(context: &Context, volume: &StorageVolume, host: Option<&str>) -> Option<Trouble> {
    let name = &volume.spec.storage_pool;
    let Some(pool) = context.stores.pools.state().into_iter().find(|pool| pool.name_any() == *name) else {
        return Some(Trouble { reason: "PoolNotFound", message: format!("there is no StoragePool {name}; make it") });
    };
    if pool.metadata.deletion_timestamp.is_some() {
        let message = format!("StoragePool {name} is being deleted; name another");
        return Some(Trouble { reason: "PoolTerminating", message });
    }
    let namespace = volume.namespace().unwrap_or_default();
    let labels = context.stores.namespaces.state().into_iter().find(|n| n.name_any() == namespace);
    let labels = labels.map(|namespace| namespace.labels().clone()).unwrap_or_default();
    if !matches(&pool.spec.namespace_selector, &labels) {
        let message =
            format!("the labels of namespace {namespace} do not match spec.namespaceSelector of StoragePool {name}");
        return Some(Trouble { reason: "NamespaceNotAllowed", message });
    }
    if let Some(host) = host
        && !context.is_known(host)
    {
        return Some(Trouble { reason: "HostNotFound", message: format!("there is no Host {host}") });
    }
    None
}

/// What the volume's owner decided for it before it went.
fn passed_down(volume: &StorageVolume) -> Option<Teardown> {
    let stored = volume.status.as_ref()?.teardown.clone()?;
    (stored.uid.is_some() && stored.uid == volume.uid()).then_some(Teardown { done: None, ..stored })
}

async fn go(context: &Context, api: &Api<StorageVolume>, volume: &StorageVolume) -> Result<Case, Error> {
    let Some((fresh, policy)) = teardown::decide(context, api, volume, binding::policy).await? else {
        return Ok(Case::Converged);
    };
    let policy = match passed_down(&fresh).and_then(|teardown| teardown.policy) {
        Some(TeardownPolicy::Keep) => TeardownPolicy::Keep,
        Some(_) | None => policy,
    };
    let host = host_of_volume(&fresh);
    let host_exists = teardown::host_exists(context, host).await?;
    let stored = fresh.status.as_ref().and_then(|status| status.teardown.as_ref());
    let uid = fresh.uid().unwrap_or_default();
    if policy != TeardownPolicy::Keep {
        import_secret::keep(context, &fresh, host).await?;
    }
    let next = plan::teardown::next(&uid, policy, host.is_some(), host_exists, stored);
    let path = fresh.status.as_ref().and_then(|status| status.path.as_deref());
    let left = path.map_or_else(|| "its file, if it was made".into(), |path| format!("file {path}"));
    teardown::tell(context, &fresh, &next, host, &left).await;
    match next {
        Next::Release(_) | Next::LetGo(_) => finalizer::take_off(context, api, &fresh).await?,
        Next::Ask(teardown) => report(context, api, &fresh, Some(teardown)).await?,
    }
    Ok(Case::Dependency)
}
