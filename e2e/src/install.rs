//! Charts, hosts and tokens: what an administrator does once on a real cluster. Does I/O.

use crate::host::Host;
use crate::run::Run;
use crate::shell::{output, until};
use crate::{HOSTS, Result, node, pki};
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// There is no kubelet: controller and agents run as programs of the bed.
pub const NO_PODS: &str = "--set=controller.enabled=false,agent.enabled=false";

/// Installs the charts, makes the Hosts, and gives each agent and the controller the token of its own account.
///
/// # Errors
/// When the API server or Helm refuses.
pub fn install(run: &Run, say: &dyn Fn(&str)) -> Result<()> {
    let kubectl = |words: &[&str]| kubectl(run, words);
    cluster(run)?;
    say("install the charts");
    chart(run, "virtfleet-crds", &[])?;
    chart(run, "virtfleet", &[NO_PODS])?;
    let token = |namespace: &str, account: &str| {
        let create = || kubectl(&["create", "token", account, "-n", namespace, "--duration=720h"]);
        until(&format!("the account {account}"), PATIENCE, create)
    };
    say("start the controller");
    pki::write_token_kubeconfig(run, "controller", token("virtfleet-system", "virtfleet-controller")?.trim())?;
    for host in HOSTS {
        let file = run.dir.join(format!("{host}.yaml"));
        std::fs::write(&file, host_manifest(host).to_string())?;
        kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()])?;
        say(&format!("start the agent of {host}"));
        // The controller makes the account as soon as it sees the Host.
        pki::write_token_kubeconfig(run, host, token("virtfleet-hosts", host)?.trim())?;
    }
    for host in HOSTS {
        say(&format!("wait for {host}"));
        let name = format!("host/{host}");
        let ready = || kubectl(&["wait", "--for=condition=Ready", "--timeout=1s", &name]);
        until(&format!("host {host}"), PATIENCE, ready)?;
    }
    Ok(())
}

/// Waits until the cluster has its node and gives that its container images.
///
/// # Errors
/// When it does not come up.
pub fn node(run: &Run, images: &Path, say: &dyn Fn(&str)) -> Result<()> {
    cluster(run)?;
    let host = Host::of(run, 0);
    say("import the container images");
    node::import(run, &host, images)?;
    say(&format!("wait for the node {}", host.name));
    let name = format!("node/{}", host.name);
    let ready = || kubectl(run, &["wait", "--for=condition=Ready", "--timeout=1s", &name]);
    until(&name, PATIENCE, ready).map(drop)
}

fn cluster(run: &Run) -> Result<()> {
    until("the API server", PATIENCE, || kubectl(run, &["get", "--raw", "/readyz"]))?;
    until("the namespaces", PATIENCE, || kubectl(run, &["get", "namespace", "kube-system", "default"])).map(drop)
}

/// Runs kubectl as the administrator.
///
/// # Errors
/// kubectl's.
pub fn kubectl(run: &Run, words: &[&str]) -> Result<String> {
    let program = run.cluster_program("kubectl");
    let config = format!("--kubeconfig={}", run.kubeconfig("admin").display());
    output(&[&[&*program, &*config], words].concat())
}

/// A Host of the bed: two processors are promised many times over, since guests here mostly sleep.
pub fn host_manifest(name: &str) -> serde_json::Value {
    crate::story::manifest("Host", name, serde_json::json!({"overcommit": {"cpu": "32"}}))
}

/// Runs Helm as the administrator.
///
/// # Errors
/// Helm's.
pub fn helm(run: &Run, words: &[&str]) -> Result<String> {
    let homes = ["CACHE", "CONFIG", "DATA"].map(|kind| format!("HELM_{kind}_HOME={}", run.dir.join("helm").display()));
    let (program, config) =
        (run.cluster_program("helm"), format!("--kubeconfig={}", run.kubeconfig("admin").display()));
    let mut argv = vec!["env"];
    argv.extend(homes.iter().map(String::as_str));
    argv.extend([&*program, &*config, "--namespace=virtfleet-system"]);
    argv.extend(words);
    output(&argv)
}

/// Installs or upgrades one of our charts, and waits until what it makes is ready.
///
/// # Errors
/// Helm's.
pub fn chart(run: &Run, name: &str, settings: &[&str]) -> Result<()> {
    let folder = run.checkout.join("charts").join(name).to_string_lossy().into_owned();
    helm(run, &[&["upgrade", "--install", "--create-namespace", "--wait", name, &folder], settings].concat()).map(drop)
}
