//! The programs of the Kubernetes control plane. Does I/O.

use crate::Result;
use crate::program::Program;
use crate::run::Run;
use std::fs;

/// Writes what they read and says how they are run.
///
/// # Errors
/// When a file cannot be written.
pub fn programs(run: &Run) -> Result<Vec<Program>> {
    let dir = run.dir.display();
    let address = run.address();
    fs::write(run.dir.join("audit.yaml"), AUDIT_POLICY)?;
    let argv = |name: &str, flags: String| -> Vec<String> {
        [run.cluster_program(name)].into_iter().chain(flags.split_whitespace().map(str::to_owned)).collect()
    };
    let etcd = format!(
        "--data-dir={dir}/etcd --name=bed --unsafe-no-fsync --log-level=warn \
         --listen-client-urls=http://{address}:2379 --advertise-client-urls=http://{address}:2379 \
         --listen-peer-urls=http://{address}:2380 --initial-advertise-peer-urls=http://{address}:2380 \
         --initial-cluster=bed=http://{address}:2380"
    );
    let apiserver = format!(
        "--etcd-servers=http://{address}:2379 --bind-address={address} --advertise-address={address} --secure-port=6443 \
         --tls-cert-file={dir}/pki/server.crt --tls-private-key-file={dir}/pki/server.key --client-ca-file={dir}/pki/ca.crt \
         --service-account-key-file={dir}/pki/service-accounts.pub \
         --service-account-signing-key-file={dir}/pki/service-accounts.key \
         --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=10.96.0.0/16 \
         --authorization-mode=Node,RBAC --audit-policy-file={dir}/audit.yaml --audit-log-path={audit} \
         --kubelet-client-certificate={dir}/pki/kubelet-client.crt --kubelet-client-key={dir}/pki/kubelet-client.key \
         --kubelet-preferred-address-types=InternalIP --endpoint-reconciler-type={reconciler}",
        // Without a node nobody looks for the API server by its cluster address.
        reconciler = if run.node.is_some() { "lease" } else { "none" },
        audit = run.audit_log().display(),
    );
    let controller_manager = format!(
        "--kubeconfig={config} --authentication-kubeconfig={config} --authorization-kubeconfig={config} --leader-elect=false \
         --bind-address={address} --cert-dir={dir}/pki/kcm --service-account-private-key-file={dir}/pki/service-accounts.key \
         --root-ca-file={dir}/pki/ca.crt --use-service-account-credentials=true",
        config = run.kubeconfig("kube-controller-manager").display(),
    );
    let scheduler = format!(
        "--kubeconfig={config} --authentication-kubeconfig={config} --authorization-kubeconfig={config} --leader-elect=false \
         --bind-address={address} --cert-dir={dir}/pki/scheduler",
        config = run.kubeconfig("kube-scheduler").display(),
    );
    let mut programs = vec![
        Program::plain("etcd", argv("etcd", etcd)),
        Program::plain("kube-apiserver", argv("kube-apiserver", apiserver)),
        Program::plain("kube-controller-manager", argv("kube-controller-manager", controller_manager)),
    ];
    if run.node.is_some() {
        programs.push(Program::plain("kube-scheduler", argv("kube-scheduler", scheduler)));
    }
    Ok(programs)
}

/// Every write is told, with who made it and what came of it; reads are not. Of our own writes to what users look at also what was
/// written: `make bench` names it when they are too many. The rule after that is the one of docs/troubleshooting.md.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: Request
  userGroups: [\"system:serviceaccounts:virtfleet-system\", \"system:serviceaccounts:virtfleet-hosts\"]
  resources:
  - group: virtfleet.dev
    resources: [virtualmachines, virtualmachines/status, storagevolumes, storagevolumes/status]
  - group: events.k8s.io
    resources: [events]
- level: Request
  verbs: [delete, deletecollection, patch, update]
  resources:
  - group: virtfleet.dev
    resources: [hosts, storagepools, storagevolumes, virtualmachines, snapshots]
- level: Metadata
";
