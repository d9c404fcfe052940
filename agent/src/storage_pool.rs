//! A StoragePool on this host: a directory below an allowed root, and libvirt's pool on it.

use crate::context::Context;
use crate::files;
use crate::import::Sidecar;
use crate::pool_directory::{self, Trouble};
use crate::stores::pool_turned;
use crds::host::{HostPool, HostPoolState};
use crds::storage_pool::StoragePool;
use crds::{Quantity, StorageVolume, TeardownPolicy, quantity};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use libvirt::{Kind, PoolDetail};
use libvirt_xml::Pool;
use plan::{names, storage_pool::selects};
use shell::Error;
use shell::retry::Case;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

impl From<libvirt::Error> for Trouble {
    fn from(error: libvirt::Error) -> Self {
        let reason = if error.kind == Kind::Gone { "LibvirtUnreachable" } else { "LibvirtRefused" };
        Trouble::new(reason, error.to_string())
    }
}

/// One pass.
pub async fn pass(pool: Arc<StoragePool>, context: Arc<Context>) -> Result<Case, Error> {
    let Some(host) = context.host_object() else { return Ok(Case::Dependency) };
    if pool.metadata.deletion_timestamp.is_some() {
        let teardown = pool.status.as_ref().and_then(|status| status.teardown.clone()).unwrap_or_default();
        let decided = teardown.policy.filter(|_| teardown.uid == pool.metadata.uid);
        return match decided {
            Some(policy) => go(&context, &pool, policy).await,
            None => Ok(Case::Converged),
        };
    }
    if !selects(&pool, &host) {
        return unselected(&context, &pool).await;
    }
    let result = ensure(&context, &pool).await;
    if result.is_ok() {
        sweep(&context, Path::new(&pool.spec.dir.path)).await?;
    }
    let case = if result.is_ok() { Case::Converged } else { Case::Dependency };
    remember(&context, &pool, result);
    Ok(case)
}

/// Directory, definition, start, autostart: each only when it is not so.
async fn ensure(context: &Context, pool: &StoragePool) -> Result<(u64, u64, u64), Trouble> {
    let name = pool.name_any();
    let path = Path::new(&pool.spec.dir.path);
    let uuid = names::pool_uuid(&context.cluster, &name, &context.host);
    let mut seen = context.libvirt.pool(&name).await?;
    // Its directory comes before its definition.
    let known = seen.as_ref().is_some_and(|seen| seen.summary.uuid == uuid);
    pool_directory::ensure(&context.args.pool_roots, path, known)?;
    // libvirt drops trailing and doubled slashes.
    let path = path.components().collect::<std::path::PathBuf>().display().to_string();
    let wanted = Pool { name: name.clone(), uuid: uuid.clone(), kind: "dir".into(), path };
    if seen.is_none() {
        let xml = wanted.render().map_err(|error| Trouble::new("InvalidPath", error.to_string()))?;
        context.libvirt.define_pool(xml).await?;
        tracing::info!("pool {name}: define");
        seen = context.libvirt.pool(&name).await?;
    }
    let Some(seen) = seen else { return Err(Trouble::new("LibvirtRefused", "the pool vanished after it was defined")) };
    if seen.summary.uuid != uuid {
        let words =
            format!("the host has a pool {name} that is not Virtfleet's and is not touched; choose another name");
        return Err(Trouble::new("Conflict", words));
    }
    check(&seen, &wanted)?;
    if !seen.summary.active {
        context.libvirt.start_pool(&uuid).await?;
        tracing::info!("pool {name}: start");
    }
    if seen.summary.autostart != pool.spec.autostart {
        context.libvirt.set_pool_autostart(&uuid, pool.spec.autostart).await?;
    }
    context.libvirt.refresh_pool(&uuid).await?;
    let summary = context.libvirt.pool(&name).await?.map(|pool| pool.summary);
    let summary = summary.ok_or_else(|| Trouble::new("LibvirtRefused", "the pool vanished"))?;
    Ok((summary.capacity, summary.allocation, summary.available))
}

fn check(seen: &PoolDetail, wanted: &Pool) -> Result<(), Trouble> {
    let defined = Pool::parse(&seen.xml).map_err(|error| Trouble::new("LibvirtRefused", error.to_string()))?;
    if defined == *wanted {
        return Ok(());
    }
    let words = format!(
        "libvirt's pool {} is a {} pool at {}, spec.dir.path says {}; make this StoragePool with that path, or undefine the pool with virsh",
        wanted.name, defined.kind, defined.path, wanted.path
    );
    Err(Trouble::new("Conflict", words))
}

fn remember(context: &Context, pool: &StoragePool, result: Result<(u64, u64, u64), Trouble>) {
    let name = pool.name_any();
    let old = context.pools.lock().get(&name).cloned();
    let sizes = old.as_ref().map(|old| (old.capacity.clone(), old.allocation.clone(), old.available.clone()));
    let (sizes, state, trouble) = match result {
        Ok(new) => (rounded(new, sizes), HostPoolState::Ready, None),
        Err(trouble) => (sizes.unwrap_or_default(), HostPoolState::Failed, Some(trouble)),
    };
    if let Some(trouble) = &trouble {
        tracing::warn!("pool {name}: {}", trouble.message);
    }
    let entry = HostPool {
        name: name.clone(),
        uid: pool.uid().unwrap_or_default(),
        observed_generation: pool.metadata.generation.unwrap_or_default(),
        state,
        reason: trouble.as_ref().map(|trouble| trouble.reason.to_owned()),
        message: trouble.map(|trouble| trouble.message),
        capacity: sizes.0,
        allocation: sizes.1,
        available: sizes.2,
    };
    if old.as_ref() != Some(&entry) {
        context.pools.lock().insert(name.clone(), entry);
        pool_turned(context, &name);
    }
}

/// Removes what imports of this host and cluster left whose volumes are gone. Others' parts, in a shared directory, are theirs.
async fn sweep(context: &Context, dir: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sidecars = entries.filter_map(|entry| {
        let uid = names::uid_of_part(&entry.file_name().to_string_lossy())?.to_owned();
        let note: Sidecar = serde_json::from_slice(&fs::read(files::sidecar(dir, &uid)).ok()?).ok()?;
        (note.cluster == context.cluster && note.host == context.host).then_some(uid)
    });
    let left: BTreeSet<String> = sidecars.collect();
    if left.is_empty() {
        return Ok(());
    }
    // The API server's own list: a store that is behind does not show the newest volumes.
    let volumes = Api::<StorageVolume>::all(context.client.clone()).list(&ListParams::default()).await;
    let volumes = volumes.map_err(Error::api("list the volumes"))?;
    for uid in left {
        if !volumes.iter().any(|volume| volume.uid().as_deref() == Some(&uid)) {
            context.jobs.cancel(&uid).await;
            match files::discard(dir, &uid) {
                Ok(()) => tracing::info!("removed what the import of a volume that is gone left: {uid}"),
                Err(error) => tracing::warn!("removing a part: {error}"),
            }
        }
    }
    Ok(())
}

type Sizes = (Option<Quantity>, Option<Quantity>, Option<Quantity>);

/// To a hundredth of the capacity, at least 64 MiB; a change below that is no news.
fn rounded((capacity, allocation, available): (u64, u64, u64), old: Option<Sizes>) -> Sizes {
    let step = (capacity / 100).max(64 << 20).next_power_of_two();
    let round = |bytes: u64| (bytes + step / 2) / step * step;
    let far = |known: &Option<Quantity>, now: u64| {
        known.as_ref().and_then(quantity::units).is_none_or(|known| known.abs_diff(now) >= step)
    };
    let (old_capacity, old_allocation, old_available) = old.unwrap_or_default();
    if far(&old_capacity, capacity) || far(&old_allocation, allocation) || far(&old_available, available) {
        let quantity = |bytes| Some(quantity::from_bytes(bytes));
        return (quantity(round(capacity)), quantity(round(allocation)), quantity(round(available)));
    }
    (old_capacity, old_allocation, old_available)
}

/// Undefines a pool of ours that no longer belongs here; its directory stays.
async fn unselected(context: &Context, pool: &StoragePool) -> Result<Case, Error> {
    let name = pool.name_any();
    if !is_here(context, &name).await? {
        forget(context, &name);
        return Ok(Case::Converged);
    }
    let volumes = context.stores.volumes.state();
    if volumes.iter().any(|volume| volume.spec.storage_pool == name) {
        let words = "the host is no longer selected, but volumes here are in it; delete them, or select the host again";
        remember(context, pool, Err(Trouble::new("VolumesExist", words)));
        return Ok(Case::Dependency);
    }
    // Labels may have come back since.
    let pools = Api::<StoragePool>::all(context.client.clone());
    let fresh = pools.get_opt(&name).await.map_err(Error::api("read the pool afresh"))?;
    let host = Api::<crds::Host>::all(context.client.clone()).get_opt(&context.host).await;
    let host = host.map_err(Error::api("read the host afresh"))?;
    match (fresh, host) {
        (Some(fresh), Some(host)) if fresh.uid() == pool.uid() && !selects(&fresh, &host) => {
            undefine(context, &name).await?;
            forget(context, &name);
            Ok(Case::Converged)
        }
        _ => Ok(Case::Dependency),
    }
}

async fn go(context: &Context, pool: &StoragePool, policy: TeardownPolicy) -> Result<Case, Error> {
    let name = pool.name_any();
    let pools = Api::<StoragePool>::all(context.client.clone());
    let fresh = pools.get_opt(&name).await.map_err(Error::api("read the pool afresh"))?;
    if fresh.is_none_or(|fresh| fresh.uid() != pool.uid() || fresh.metadata.deletion_timestamp.is_none()) {
        return Ok(Case::Dependency);
    }
    if policy != TeardownPolicy::Keep && is_here(context, &name).await? {
        if policy == TeardownPolicy::Delete
            && let Err(error) = pool_directory::remove_empty(&context.args.pool_roots, Path::new(&pool.spec.dir.path))
        {
            tracing::warn!("pool {name}: its directory stays: {error}");
        }
        undefine(context, &name).await?;
    }
    forget(context, &name);
    Ok(Case::Converged)
}

async fn is_here(context: &Context, name: &str) -> Result<bool, Error> {
    let uuid = names::pool_uuid(&context.cluster, name, &context.host);
    let seen = context.libvirt.pool(name).await.map_err(passing("look for the pool"))?;
    Ok(seen.is_some_and(|seen| seen.summary.uuid == uuid))
}

async fn undefine(context: &Context, name: &str) -> Result<(), Error> {
    let uuid = names::pool_uuid(&context.cluster, name, &context.host);
    match context.libvirt.stop_pool(&uuid).await {
        Err(error) if ![Kind::WrongState, Kind::NotFound].contains(&error.kind) => {
            return Err(passing("stop the pool")(error));
        }
        Ok(()) | Err(_) => {}
    }
    context.libvirt.undefine_pool(&uuid).await.map_err(passing("undefine the pool"))?;
    tracing::info!("pool {name}: undefine");
    Ok(())
}

fn forget(context: &Context, name: &str) {
    if context.pools.lock().remove(name).is_some() {
        context.host_changed.notify_one();
    }
}

fn passing(act: &'static str) -> impl Fn(libvirt::Error) -> Error {
    move |error| Error::Passing { act, message: error.to_string() }
}
