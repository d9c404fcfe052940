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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::retry::Case;
    use crds::storage_pool::{StoragePool, StoragePoolStatus};
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Stands for an API server that is overloaded, broken or ahead of us, which a healthy one cannot be made to be.
    fn answering(code: u16, asked: Arc<AtomicU32>) -> Client {
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            asked.fetch_add(1, Ordering::Relaxed);
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": ""});
            let body = kube::client::Body::from(status.to_string().into_bytes());
            async move { Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap()) }
        });
        Client::new(service, "default")
    }

    fn pool() -> StoragePool {
        serde_json::from_value(json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "StoragePool",
            "metadata": {"name": "p", "resourceVersion": "1"}, "spec": {"dir": {"path": "/p"}}}))
        .unwrap()
    }

    #[tokio::test]
    async fn each_refusal_of_the_api_server_is_retried_as_it_should_be() {
        for (code, case) in
            [(409, Case::Conflict), (429, Case::Transient), (500, Case::Transient), (403, Case::Transient)]
        {
            let asked = Arc::new(AtomicU32::new(0));
            let api = Api::<StoragePool>::all(answering(code, asked.clone()));
            let wanted = StoragePoolStatus { volumes: Some(1), ..StoragePoolStatus::default() };
            let stored = StoragePoolStatus::default();
            let result = apply(&api, "test", &pool(), (&stored, &wanted), &Metrics::default()).await;
            let error = result.unwrap_err();
            assert_eq!(error.retry(), case, "{error}");
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_answer_is_away() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let wanted = StoragePoolStatus { volumes: Some(1), ..StoragePoolStatus::default() };
        let (api, stored) = (Api::<StoragePool>::all(client), StoragePoolStatus::default());
        let error = apply(&api, "test", &pool(), (&stored, &wanted), &Metrics::default()).await.unwrap_err();
        assert_eq!(error.retry(), Case::Away, "{error}");
    }

    #[tokio::test]
    async fn what_is_stored_already_is_not_written_again() {
        let asked = Arc::new(AtomicU32::new(0));
        let api = Api::<StoragePool>::all(answering(500, asked.clone()));
        let same = StoragePoolStatus { volumes: Some(1), ..StoragePoolStatus::default() };
        assert!(!apply(&api, "test", &pool(), (&same, &same.clone()), &Metrics::default()).await.unwrap());
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }
}
