//! Secrets that stories make, and the controller's copies of them. Does I/O.

use super::Story;
use crds::StorageVolume;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use plan::names::{host_namespace, import_secret};
use serde_json::{Value, json};

impl Story {
    /// Makes or changes a Secret of the story's namespace.
    pub async fn secret(&self, name: &str, data: Value) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        self.apply(secret).await.unwrap_or_else(|error| panic!("secret {name}: {error}"));
    }

    /// Manifest of a volume on `host` whose image is at `url`, which the test guest's may be.
    pub fn secret_volume(&self, name: &str, host: &str, url: &str, more: Value) -> Value {
        let http = super::merged(super::merged(self.image("", "guest.qcow2"), json!({"url": url})), more);
        self.volume_manifest(name, json!({"host": host, "source": {"http": http}}))
    }

    /// The copy that the controller made on `host` for the volume's import.
    pub async fn secret_copy(&self, host: &str, volume: &StorageVolume) -> Option<Secret> {
        let copies = Api::<Secret>::namespaced(self.client.clone(), &host_namespace(host));
        let copy = copies.get_opt(&import_secret(&volume.uid().unwrap_or_default())).await;
        copy.unwrap_or_else(|error| panic!("the copy of a secret: {error}"))
    }

    /// Waits until there is no such copy.
    pub async fn no_secret_copy(&self, host: &str, volume: &StorageVolume) {
        super::until("the end of the copy", async || {
            self.secret_copy(host, volume).await.map_or(Ok(()), |copy| Err(format!("{:?}", copy.metadata)))
        })
        .await;
    }
}
