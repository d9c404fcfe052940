//! Agents beside the bed's own, each of a Host whose libvirt is the test driver within the agent: what counts is who they are. Does I/O.

use super::{Story, manifest, until};
use crate::Result;
use crate::install::host_manifest;
use crate::pki::write_token_kubeconfig;
use crds::{HOSTS_NAMESPACE, Host};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Config};
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Where a pod finds what it is to the API server.
const POD: &str = "/run/secrets/kubernetes.io/serviceaccount";

impl Story {
    /// A Host on which nothing is placed, and waits for its account.
    pub async fn make_host(&self, name: &str) {
        self.apply(manifest("Host", name, json!({"schedulable": false}))).await.unwrap_or_else(|e| panic!("{e}"));
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), HOSTS_NAMESPACE);
        until(&format!("the account of {name}"), async || match accounts.get_opt(name).await {
            Ok(found) => found.map(|_| ()).ok_or_else(|| "none".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// Makes one of the bed's Hosts again, and gives its agent a token of the new account for its next start.
    pub async fn rejoin(&self, name: &str) {
        self.apply(host_manifest(name)).await.unwrap_or_else(|error| panic!("{error}"));
        let token = until(&format!("a token of {name}"), async || {
            token_of(&self.client, (HOSTS_NAMESPACE, name), None, 24 * 3600).await
        })
        .await;
        write_token_kubeconfig(&self.run, name, &token).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Deletes a Host and waits until it is gone.
    pub async fn end_host(&self, name: &str) {
        let hosts = Api::<Host>::all(self.client.clone());
        hosts.delete(name, &DeleteParams::default()).await.unwrap_or_else(|error| panic!("deleting {name}: {error}"));
        until(&format!("the end of {name}"), async || match hosts.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// A pod of the agents' on that Node. No kubelet runs it.
    pub async fn agents_pod(&self, node: &str) -> String {
        let (name, namespace) = (format!("agent-{node}"), "virtfleet-system");
        let spec = json!({"nodeName": node, "serviceAccountName": "virtfleet-agent", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "agent", "image": "none"}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec});
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(self.client.clone(), namespace);
        let pod = serde_json::from_value(pod).unwrap_or_else(|error| panic!("{error}"));
        pods.create(&PostParams::default(), &pod).await.unwrap_or_else(|error| panic!("{error}"));
        name
    }

    /// A client that has nothing but a token.
    pub fn with_token(&self, token: &str) -> Client {
        let mut config = Config::new(self.run.server().parse().unwrap_or_else(|error| panic!("{error}")));
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(token.to_owned().into());
        Client::try_from(config).unwrap_or_else(|error| panic!("{error}"))
    }

    /// An agent's log, for a story that fails.
    fn agent_log(&self, host: &str) -> Result<File> {
        let path = self.run.dir.join(format!("log/agent-{host}.log"));
        Ok(File::options().create(true).append(true).open(path)?)
    }

    /// Starts an agent as a kubelet does: its token and the cluster's certificate lie where a pod has them, and it has a folder for its
    /// host's token. Ends when it is dropped.
    pub fn agent_in_pod(&self, host: &str, token: &str) -> Result<Child> {
        let files = self.run.dir.join(format!("pod-{host}"));
        fs::create_dir_all(&files)?;
        fs::copy(self.run.dir.join("pki/ca.crt"), files.join("ca.crt"))?;
        fs::write(files.join("token"), token)?;
        fs::write(files.join("namespace"), "virtfleet-system")?;
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs pod /run && mkdir -p {POD} /run/virtfleet && mount --bind {} {POD} && exec \"$@\"",
            files.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "setpriv", "--pdeathsig", "KILL", "sh", "-c", &script, "sh"]);
        command.env("KUBERNETES_SERVICE_HOST", self.run.address().to_string()).env("KUBERNETES_SERVICE_PORT", "6443");
        self.start(command, host, &["--token-file=/run/virtfleet/token"])
    }

    /// Starts an agent as on a host outside the cluster: with a kubeconfig, and a file for the tokens that it gets itself.
    pub fn agent_outside(&self, host: &str, kubeconfig: &Path) -> Result<(Child, PathBuf)> {
        let token = self.run.dir.join(format!("{host}.own-token"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let flags = [format!("--kubeconfig={}", kubeconfig.display()), format!("--token-file={}", token.display())];
        Ok((self.start(command, host, &[&flags[0], &flags[1]])?, token))
    }

    fn start(&self, mut command: Command, host: &str, flags: &[&str]) -> Result<Child> {
        let log = self.agent_log(host)?;
        let listen = format!("--listen={}:0", self.run.address());
        command.arg(self.run.dir.join("bin/virtfleet-agent")).args(flags);
        command.args(["--host", host, "--libvirt-uri", "test:///default", &listen]);
        // What the tester's own shell knows of clusters is none of its business.
        command.env_remove("KUBECONFIG").env("HOME", "/nonexistent").current_dir("/");
        Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn()?)
    }
}

/// Asks for a token of an account, as whoever the client is; `pod`: for the use of that pod only.
///
/// # Errors
/// The API server's refusal.
pub async fn token_of(
    client: &Client,
    (namespace, account): (&str, &str),
    pod: Option<&str>,
    seconds: i64,
) -> kube::Result<String> {
    let bound_object_ref = pod.map(|name| BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(name.into()),
        ..BoundObjectReference::default()
    });
    let spec = TokenRequestSpec { bound_object_ref, expiration_seconds: Some(seconds), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.unwrap_or_default().token.unwrap_or_default())
}
