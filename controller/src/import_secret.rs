//! Copies of the Secrets that imports need, each in the namespace of its volume's host. What they hold is written nowhere else.

use crate::context::Context;
use crate::teardown::is_crd_going;
use crds::Host;
use crds::storage_volume::StorageVolume;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use plan::names;
use plan::storage_volume::secret::{Data, Step, is_awaited, is_needed, is_stale, named, next, taken};
use shell::Error;
use shell::error::is_code;
use shell::status::beside;

/// Label of each copy, with the kind that it is for. What bears it not is somebody else's.
const COPY_FOR: &str = "virtfleet.dev/copy-for";
const KIND: &str = "StorageVolume";

/// Brings the copy for a volume's import to what it should be; `host`: where the volume is or is about to be bound. Gives whether the user's
/// Secret is to be looked at again soon.
///
/// # Errors
/// The API server's answer.
pub async fn keep(context: &Context, volume: &StorageVolume, host: Option<&str>) -> Result<bool, Error> {
    let (Some(secret), Some(host)) = (named(volume), host) else { return Ok(false) };
    let needed = is_needed(volume, context.stands(host));
    let copies = copies(context, host);
    let name = names::import_secret(&volume.uid().unwrap_or_default());
    let there = copies.get_opt(&name).await.map_err(Error::api("read the copy of a secret"))?;
    let mut given = None;
    if needed {
        let users: Api<Secret> = beside(&context.client, volume);
        given = users.get_opt(secret).await.map_err(Error::api("read the volume's secret"))?.and_then(|s| taken(&s));
    }
    let awaited = is_awaited(volume, needed, given.is_some());
    let held = there.as_ref().map(|copy| copy.data.clone().unwrap_or_default());
    let step = next(needed, given, held.as_ref());
    if step == Step::Nothing || is_kept(context).await? {
        return Ok(awaited);
    }
    match (step, there) {
        (Step::Create(data), _) => {
            let made = copies.create(&PostParams::default(), &copy(volume, secret, &name, None, data)).await;
            written(context, made, "copy the volume's secret")?;
        }
        (Step::Replace(data), Some(there)) => {
            let copy = copy(volume, secret, &name, there.metadata.resource_version, data);
            written(context, copies.replace(&name, &PostParams::default(), &copy).await, "copy the volume's secret")?;
        }
        (Step::Remove, Some(there)) => remove(context, &copies, &there.metadata).await?,
        (Step::Nothing | Step::Replace(_) | Step::Remove, _) => {}
    }
    Ok(awaited)
}

/// Removes the copies in a host's namespace that no volume there needs.
///
/// # Errors
/// The API server's answer.
pub async fn sweep(context: &Context, host: &str) -> Result<(), Error> {
    let volumes = context.stores.volumes.state();
    let mut stale = list(context, host).await?;
    stale.retain(|copy| {
        let uid = copy.name.as_deref().and_then(names::uid_of_import_secret);
        uid.is_none_or(|uid| is_stale(uid, host, volumes.iter().map(|volume| &**volume)))
    });
    if stale.is_empty() || is_kept(context).await? {
        return Ok(());
    }
    for copy in stale {
        remove(context, &copies(context, host), &copy).await?;
    }
    Ok(())
}

/// Removes all copies in the namespace of a host that goes.
///
/// # Errors
/// The API server's answer.
pub async fn remove_all(context: &Context, host: &str) -> Result<(), Error> {
    for copy in list(context, host).await? {
        remove(context, &copies(context, host), &copy).await?;
    }
    Ok(())
}

/// While a CRD goes, the objects that vanish mean nothing: no copy is made or removed.
async fn is_kept(context: &Context) -> Result<bool, Error> {
    Ok(is_crd_going::<StorageVolume>(context).await? || is_crd_going::<Host>(context).await?)
}

fn copies(context: &Context, host: &str) -> Api<Secret> {
    Api::namespaced(context.client.clone(), &names::host_namespace(host))
}

async fn list(context: &Context, host: &str) -> Result<Vec<ObjectMeta>, Error> {
    let ours = ListParams::default().labels(&format!("{COPY_FOR}={KIND}"));
    let list = copies(context, host).list_metadata(&ours).await.map_err(Error::api("list the copies of secrets"))?;
    Ok(list.items.into_iter().map(|copy| copy.metadata).collect())
}

fn copy(volume: &StorageVolume, secret: &str, name: &str, version: Option<String>, data: Data) -> Secret {
    let of = |name: &str| format!("{}/{name}", volume.namespace().unwrap_or_default());
    let told = [("virtfleet.dev/volume", of(&volume.name_any())), ("virtfleet.dev/secret", of(secret))];
    let metadata = ObjectMeta {
        name: Some(name.into()),
        resource_version: version,
        labels: Some([(COPY_FOR.to_owned(), KIND.to_owned())].into()),
        annotations: Some(told.map(|(key, value)| (key.to_owned(), value)).into()),
        ..ObjectMeta::default()
    };
    Secret { metadata, type_: Some("Opaque".into()), data: Some(data), ..Secret::default() }
}

/// Removes the very copy that was seen.
async fn remove(context: &Context, copies: &Api<Secret>, copy: &ObjectMeta) -> Result<(), Error> {
    let very = Preconditions { uid: copy.uid.clone(), resource_version: copy.resource_version.clone() };
    let parameters = DeleteParams { preconditions: Some(very), ..DeleteParams::default() };
    match copies.delete(copy.name.as_deref().unwrap_or_default(), &parameters).await {
        Err(error) if is_code(&error, 404) => Ok(()),
        answer => written(context, answer, "remove the copy of a secret"),
    }
}

fn written<T>(context: &Context, answer: kube::Result<T>, act: &'static str) -> Result<(), Error> {
    context.metrics.write("Secret");
    answer.map(drop).map_err(Error::api(act))
}
