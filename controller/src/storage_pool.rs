//! A StoragePool: sums up what its hosts report, and lets it go when none of them lists it any more.

use crate::context::{Context, MANAGER};
use crate::{finalizer, teardown};
use crds::storage_pool::{DeletionPolicy, StoragePool};
use crds::{Teardown, TeardownPolicy};
use jiff::Timestamp;
use kube::{Api, ResourceExt};
use plan::storage_pool::{entry, status};
use shell::Error;
use shell::retry::Case;
use shell::status::apply;
use std::sync::Arc;

/// One pass.
pub async fn pass(pool: Arc<StoragePool>, context: Arc<Context>) -> Result<Case, Error> {
    let api = Api::<StoragePool>::all(context.client.clone());
    if pool.metadata.deletion_timestamp.is_some() {
        return go(&context, &api, &pool).await;
    }
    if !finalizer::is_on(&*pool) {
        finalizer::put(&context, &api, &*pool).await?;
        return Ok(Case::Converged);
    }
    report(&context, &api, &pool, None).await?;
    Ok(Case::Converged)
}

async fn report(
    context: &Context,
    api: &Api<StoragePool>,
    pool: &StoragePool,
    teardown: Option<Teardown>,
) -> Result<(), Error> {
    let hosts = context.stores.hosts.state();
    let hosts: Vec<_> = hosts.iter().map(|host| &**host).collect();
    let wanted = status(pool, &hosts, volumes(context, pool), teardown, Timestamp::now());
    let stored = pool.status.clone().unwrap_or_default();
    if apply(api, MANAGER, pool, (&stored, &wanted), &context.metrics).await? {
        context.events.turned(pool, &stored.conditions, &wanted.conditions).await;
    }
    Ok(())
}

fn volumes(context: &Context, pool: &StoragePool) -> usize {
    let name = pool.name_any();
    context.stores.volumes.state().iter().filter(|volume| volume.spec.storage_pool == name).count()
}

async fn go(context: &Context, api: &Api<StoragePool>, pool: &StoragePool) -> Result<Case, Error> {
    let by_spec = |pool: &StoragePool| match pool.spec.deletion_policy {
        DeletionPolicy::Retain => TeardownPolicy::Retain,
        DeletionPolicy::Delete => TeardownPolicy::Delete,
    };
    let Some((fresh, policy)) = teardown::decide(context, api, pool, by_spec).await? else {
        return Ok(Case::Converged);
    };
    let hosts = context.stores.hosts.state();
    let listed = hosts.iter().any(|host| entry(&fresh, host).is_some());
    if policy == TeardownPolicy::Keep || (!listed && volumes(context, &fresh) == 0) {
        finalizer::take_off(context, api, &fresh).await?;
        return Ok(Case::Converged);
    }
    // Volumes in it block it: the hosts are not asked before they are gone.
    let asked = (volumes(context, &fresh) == 0).then_some(policy);
    let teardown = Teardown { uid: fresh.uid(), policy: asked, done: None };
    report(context, api, &fresh, Some(teardown)).await?;
    Ok(Case::Dependency)
}
