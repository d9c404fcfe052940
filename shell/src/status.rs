//! The one way in which a status is written.

use crate::error::Error;
use crate::metrics::Metrics;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Applies one writer's whole part of a status, when it differs from the stored part. Gives whether it wrote.
///
/// The resourceVersion of the object that was looked at goes along: an object that was replaced or written since answers 409. (The
/// API server does not check a uid there.)
///
/// # Errors
/// The API server's answer.
pub async fn apply<K, S>(
    api: &Api<K>,
    manager: &str,
    object: &K,
    (stored, wanted): (&S, &S),
    metrics: &Metrics,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize + PartialEq,
{
    if stored == wanted {
        return Ok(false);
    }
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "resourceVersion": object.resource_version()},
        "status": wanted,
    });
    metrics.write(&K::kind(&()));
    let parameters = PatchParams::apply(manager).force();
    let written = api.patch_status(&object.name_any(), &parameters, &Patch::Apply(&body)).await;
    written.map_err(Error::api("write the status")).map(|_| true)
}

/// The API of a kind in the object's own namespace.
pub fn beside<K>(client: &Client, object: &impl ResourceExt) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), &object.namespace().unwrap_or_default())
}
