//! The one finalizer: put on before anything else happens, taken off when the teardown is done.

use crate::context::{Context, MANAGER};
use crds::FINALIZER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shell::Error;
use shell::error::is_code;
use std::fmt::Debug;

/// Whether it is there.
pub fn is_on<K: Resource>(object: &K) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Puts it on, and gives the object as it is now.
///
/// # Errors
/// The API server's answer.
pub async fn put<K>(context: &Context, api: &Api<K>, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    patch(context, api, object, json!({"finalizers": with_ours(object)})).await
}

/// Puts it on, and the owner with whom the object goes; gives the object as it is now.
///
/// # Errors
/// The API server's answer.
pub async fn put_owned<K>(context: &Context, api: &Api<K>, object: &K, owner: OwnerReference) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut owners = object.owner_references().to_vec();
    if !owners.iter().any(|known| known.uid == owner.uid) {
        owners.push(owner);
    }
    patch(context, api, object, json!({"finalizers": with_ours(object), "ownerReferences": owners})).await
}

fn with_ours<K: Resource>(object: &K) -> Vec<String> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.into());
    finalizers
}

/// Whole lists are replaced: the resourceVersion keeps what others put on since.
async fn patch<K>(context: &Context, api: &Api<K>, object: &K, mut metadata: Value) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    metadata["resourceVersion"] = json!(object.resource_version());
    context.metrics.write(&K::kind(&()));
    let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let put = api.patch(&object.name_any(), &parameters, &Patch::Merge(json!({"metadata": metadata}))).await;
    put.map_err(Error::api("put the finalizer on"))
}

/// Takes it off this very object. One that is gone already is no error.
///
/// # Errors
/// The API server's answer.
pub async fn take_off<K>(context: &Context, api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let Some(place) = object.finalizers().iter().position(|finalizer| finalizer == FINALIZER) else {
        return Ok(());
    };
    let path = format!("/metadata/finalizers/{place}");
    let patch: json_patch::Patch = serde_json::from_value(json!([
        {"op": "test", "path": "/metadata/uid", "value": object.uid()},
        {"op": "test", "path": path, "value": FINALIZER},
        {"op": "remove", "path": path},
    ]))
    .map_err(|error| Error::Passing { act: "take the finalizer off", message: error.to_string() })?;
    context.metrics.write(&K::kind(&()));
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::<()>::Json(patch)).await {
        Ok(_) => Ok(()),
        Err(error) if is_code(&error, 404) => Ok(()),
        Err(error) => Err(Error::api("take the finalizer off")(error)),
    }
}
