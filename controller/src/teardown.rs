//! The decision how a deleted object goes, on fresh reads of the object and of its CRD.

use crate::context::Context;
use crate::finalizer;
use crds::{Host, TeardownPolicy};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Resource, ResourceExt};
use plan::teardown::{Next, policy};
use serde::de::DeserializeOwned;
use shell::Error;
use std::fmt::Debug;

/// The object as it is now and what becomes of its things on the host; `None` when it is not deleted after all, is gone, or
/// was released before and waits for others.
///
/// # Errors
/// The API server's answer.
pub async fn decide<K>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    by_spec: impl Fn(&K) -> TeardownPolicy,
) -> Result<Option<(K, TeardownPolicy)>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let fresh = api.get_opt(&object.name_any()).await.map_err(Error::api("read the object afresh"))?;
    let same =
        |fresh: &K| fresh.uid() == object.uid() && fresh.meta().deletion_timestamp.is_some() && finalizer::is_on(fresh);
    let Some(fresh) = fresh.filter(same) else { return Ok(None) };
    let terminating = is_crd_going::<K>(context).await?;
    let policy = policy(terminating, fresh.meta(), by_spec(&fresh));
    Ok(Some((fresh, policy)))
}

/// Whether there is a Host of that name. What is not seen is asked for: it may have been made again just now.
///
/// # Errors
/// The API server's answer.
pub async fn host_exists(context: &Context, host: Option<&str>) -> Result<bool, Error> {
    let Some(host) = host else { return Ok(false) };
    let hosts = Api::<Host>::all(context.client.clone());
    let asked = async || hosts.get_metadata_opt(host).await.map_err(Error::api("read the Host afresh"));
    Ok(context.is_known(host) || asked().await?.is_some())
}

/// Tells of an object that goes though nobody on its host could be asked, before it is gone; `left`: what is probably still there.
pub async fn tell<K>(context: &Context, object: &K, next: &Next, host: Option<&str>, left: &str)
where
    K: Resource<DynamicType = ()>,
{
    let (Next::LetGo(_), Some(host)) = (next, host) else { return };
    let note = format!(
        "there is no Host {host}, so nobody there was asked and nothing was removed; left there, if that machine still exists: {left}"
    );
    let namespace = object.namespace().unwrap_or_default();
    tracing::warn!("{} {namespace}/{} is let go: {note}", K::kind(&()), object.name_any());
    context.events.warn(object, "LetGo", &note).await;
}

/// Whether the kind's CRD is being deleted, read afresh: then its objects vanish and nobody meant them.
///
/// # Errors
/// The API server's answer.
pub async fn is_crd_going<K: Resource<DynamicType = ()>>(context: &Context) -> Result<bool, Error> {
    let definitions = Api::<CustomResourceDefinition>::all(context.client.clone());
    let name = format!("{}.{}", K::plural(&()), K::group(&()));
    let definition = definitions.get_metadata_opt(&name).await.map_err(Error::api("read the CRD afresh"))?;
    // A CRD that is gone was deleted.
    Ok(definition.is_none_or(|definition| definition.metadata.deletion_timestamp.is_some()))
}
