//! The one finalizer: put on before anything else happens, taken off when the teardown is done.

use crate::context::{Context, MANAGER};
use crds::FINALIZER;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
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
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.into());
    // The whole list is replaced: the resourceVersion keeps what others put on since.
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers}});
    context.metrics.write(&K::kind(&()));
    let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let put = api.patch(&object.name_any(), &parameters, &Patch::Merge(patch)).await;
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
