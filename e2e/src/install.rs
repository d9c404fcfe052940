//! Charts, hosts and tokens: what an administrator does once on a real cluster. Does I/O.

use crate::run::Run;
use crate::shell::{output, until};
use crate::{HOSTS, Result, pki};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// Installs the charts, makes the Hosts, and gives each agent and the controller the token of its own account.
///
/// # Errors
/// When the API server or Helm refuses.
pub fn install(run: &Run, say: &dyn Fn(&str)) -> Result<()> {
    let kubectl = |words: &[&str]| {
        let mut argv =
            vec![run.cluster_program("kubectl"), format!("--kubeconfig={}", run.kubeconfig("admin").display())];
        argv.extend(words.iter().map(ToString::to_string));
        output(&argv)
    };
    until("the API server", PATIENCE, || kubectl(&["get", "--raw", "/readyz"]))?;
    until("the namespaces", PATIENCE, || kubectl(&["get", "namespace", "kube-system", "default"]))?;
    for chart in ["virtfleet-crds", "virtfleet"] {
        say(&format!("install chart {chart}"));
        helm(run, chart)?;
    }
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

/// A Host of the bed: two processors are promised many times over, since guests here mostly sleep.
pub fn host_manifest(name: &str) -> serde_json::Value {
    crate::story::manifest("Host", name, serde_json::json!({"overcommit": {"cpu": "32"}}))
}

/// Installs or upgrades one of our charts.
///
/// # Errors
/// Helm's.
pub fn helm(run: &Run, chart: &str) -> Result<()> {
    let home = run.dir.join("helm");
    let mut argv = vec!["env".to_owned()];
    argv.extend(["CACHE", "CONFIG", "DATA"].map(|kind| format!("HELM_{kind}_HOME={}", home.display())));
    argv.push(run.cluster_program("helm"));
    argv.push(format!("--kubeconfig={}", run.kubeconfig("admin").display()));
    let words = "upgrade --install --namespace virtfleet-system --create-namespace --wait";
    argv.extend(words.split(' ').map(str::to_owned));
    argv.extend([chart.to_owned(), run.checkout.join("charts").join(chart).to_string_lossy().into_owned()]);
    if chart == "virtfleet" {
        // There is no kubelet: controller and agents run as programs of the bed.
        argv.push("--set=controller.enabled=false,agent.enabled=false".to_owned());
    }
    output(&argv).map(drop)
}
