//! The way to the API server.

use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use std::path::Path;
use std::time::Duration;

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a kubeconfig.
    #[error("cannot read kubeconfig {path}; give --kubeconfig a file with cluster and token")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No file was given and there is none in the usual places.
    #[error("found no way to an API server: no --kubeconfig, no KUBECONFIG, no ~/.kube/config and no pod's token")]
    Nowhere(#[source] kube::config::InferConfigError),
    /// The settings do not fit together.
    #[error("cannot use the way to the API server")]
    Unusable(#[source] kube::Error),
}

/// The way to the API server from a kubeconfig, or from the usual places without one. Connects to nothing.
///
/// # Errors
/// When there is no usable configuration.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, Error> {
    // Both binaries use one TLS implementation for everything; a second call finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = match kubeconfig {
        None => Config::infer().await.map_err(Error::Nowhere)?,
        Some(path) => {
            let failed = |source| Error::Kubeconfig { path: path.display().to_string(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
    };
    config.connect_timeout = Some(Duration::from_secs(10));
    Ok(config)
}

/// A client on that way. Connects to nothing yet.
///
/// # Errors
/// When its settings do not fit together.
pub fn of(config: Config) -> Result<Client, Error> {
    Client::try_from(config).map_err(Error::Unusable)
}

/// UID of namespace kube-system, by which our marks know the cluster. Waits for the API server, however long that takes, and says so.
pub async fn cluster(client: &Client) -> String {
    let namespaces = Api::<Namespace>::all(client.clone());
    let mut pause = Duration::from_millis(500);
    loop {
        match namespaces.get("kube-system").await {
            Ok(namespace) => return namespace.metadata.uid.unwrap_or_default(),
            Err(error) => tracing::warn!("waiting for the API server: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}
