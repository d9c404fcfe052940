//! The kubeconfig for the agent of a host outside the cluster, made by an administrator with an administrator's rights. Does I/O.
//!
//! It holds a token of the host's account that lives 30 days. The agent renews it by itself, which a RoleBinding allows that goes with the
//! account: who deletes the ServiceAccount takes every token back.

use crds::HOSTS_NAMESPACE;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{Cluster, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

const LIFETIME_SECONDS: i64 = 30 * 24 * 3600;
/// The controller makes the account of a Host in far less.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(1);

/// The text of the file. `server`: the API server's address as the host sees it, when it is not the administrator's.
///
/// # Errors
/// When there is no such account, the administrator may not, or the administrator's own kubeconfig is not understood.
pub async fn text(
    client: &Client,
    kubeconfig: Option<&Path>,
    host: &str,
    server: Option<&str>,
) -> Result<String, Box<dyn Error>> {
    let cluster = cluster(kubeconfig, server)?;
    let account = account(client, host).await?;
    allow_renewal(client, host, &account).await?;
    let spec = TokenRequestSpec { expiration_seconds: Some(LIFETIME_SECONDS), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), HOSTS_NAMESPACE);
    let answer = accounts.create_token_request(host, &PostParams::default(), &request).await?;
    let token = answer.status.unwrap_or_default().token.ok_or("the API server's answer holds no token")?;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": host,
        "contexts": [{"name": host, "context": {"cluster": "cluster", "user": host}}],
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": host, "user": {"token": token}}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

/// The cluster as the administrator knows it, with its authority's certificate instead of the name of a file.
fn cluster(kubeconfig: Option<&Path>, server: Option<&str>) -> Result<Cluster, Box<dyn Error>> {
    let config = kubeconfig.map_or_else(Kubeconfig::read, Kubeconfig::read_from)?;
    let context = config.current_context.ok_or("the kubeconfig has no current-context")?;
    let named = config.contexts.into_iter().find(|named| named.name == context);
    let name = named.and_then(|named| named.context).map(|context| context.cluster).unwrap_or_default();
    let found = config.clusters.into_iter().find(|named| named.name == name).and_then(|named| named.cluster);
    let mut cluster = found.ok_or_else(|| format!("the kubeconfig's context {context} names no cluster"))?;
    if let Some(file) = cluster.certificate_authority.take() {
        let pem = std::fs::read(&file).map_err(|error| format!("reading {file}: {error}"))?;
        cluster.certificate_authority_data = Some(base64(&pem));
    }
    cluster.server = server.map(str::to_owned).or(cluster.server);
    Ok(cluster)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

async fn account(client: &Client, host: &str) -> Result<ServiceAccount, Box<dyn Error>> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), HOSTS_NAMESPACE);
    let look = async {
        loop {
            match accounts.get_opt(host).await {
                Ok(Some(account)) => return Ok(account),
                Ok(None) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(found) => Ok(found?),
        Err(_) => Err(format!(
            "there is no ServiceAccount {host} in {HOSTS_NAMESPACE}: apply a Host {host} first, and see that the controller runs"
        )
        .into()),
    }
}

/// The account may ask for its own next token; the policy virtfleet-host-token keeps it from others'.
async fn allow_renewal(client: &Client, host: &str, account: &ServiceAccount) -> kube::Result<()> {
    let name = format!("virtfleet-host-token.{host}");
    let binding: Value = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "v1", "kind": "ServiceAccount", "name": host, "uid": account.metadata.uid}],
        },
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "virtfleet-host-token"},
        "subjects": [{"kind": "ServiceAccount", "name": host, "namespace": HOSTS_NAMESPACE}],
    });
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), HOSTS_NAMESPACE);
    bindings.patch(&name, &PatchParams::apply("virtfleet-host-kubeconfig").force(), &Patch::Apply(&binding)).await?;
    Ok(())
}
