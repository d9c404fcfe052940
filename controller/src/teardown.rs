//! The decision how a deleted object goes, on fresh reads of the object and of its CRD.

use crate::context::Context;
use crds::TeardownPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Resource, ResourceExt};
use plan::teardown::policy;
use serde::de::DeserializeOwned;
use shell::Error;
use std::fmt::Debug;

/// The object as it is now and what becomes of its things on the host; `None` when it is not deleted after all, or is gone.
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
    let same = |fresh: &K| fresh.uid() == object.uid() && fresh.meta().deletion_timestamp.is_some();
    let Some(fresh) = fresh.filter(same) else { return Ok(None) };
    let terminating = is_crd_going::<K>(context).await?;
    let policy = policy(terminating, fresh.meta(), by_spec(&fresh));
    Ok(Some((fresh, policy)))
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
