//! What an agent's and the controller's accounts may do, verb by kind by whose: and that they may do nothing else.

use crds::{HOSTS_NAMESPACE, Host, Snapshot, StoragePool, StorageVolume, VirtualMachine};
use e2e::story::{Story, client};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use plan::names::host_namespace;
use serde_json::{Value, json};

/// One cell: what was tried, and the server's answer.
struct Table {
    who: &'static str,
    wrong: Vec<String>,
    cells: usize,
}

impl Table {
    fn cell<T>(&mut self, what: &str, allowed: bool, answer: kube::Result<T>) {
        self.cells += 1;
        let (fits, told) = match answer {
            Ok(_) => (allowed, "allowed".to_owned()),
            Err(kube::Error::Api(status)) => {
                (!allowed && status.code == 403, format!("{} {}", status.code, status.message))
            }
            Err(error) => (false, error.to_string()),
        };
        if !fits {
            self.wrong.push(format!(
                "{}: {what}: expected {}, got {told}",
                self.who,
                if allowed { "yes" } else { "no" }
            ));
        }
    }

    fn check(self) {
        assert!(self.wrong.is_empty(), "{} of {} cells:\n{}", self.wrong.len(), self.cells, self.wrong.join("\n"));
        assert!(self.cells > 10);
    }
}

fn dry() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::apply("test").force() }
}

fn status(kind: &str, name: &str, status: Value) -> Patch<Value> {
    Patch::Apply(
        json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "status": status}),
    )
}

/// A snapshot has other phases than a machine.
fn without_phase(status: &Value) -> Value {
    let mut status = status.clone();
    status.as_object_mut().unwrap().remove("phase");
    status
}

async fn bound(story: &Story) {
    for (name, host) in [("on-a", Some("node-a")), ("on-b", Some("node-b")), ("nowhere", None)] {
        let placement = host.map_or(json!({"host": "no-such-host"}), |host| json!({"host": host}));
        story.apply(story.bare(name, json!({"placement": placement}))).await.unwrap();
        let place = host.map_or(json!({"capacity": "1Mi"}), |host| json!({"capacity": "1Mi", "host": host}));
        story.apply(story.volume_manifest(name, place)).await.unwrap();
        story.apply(story.snapshot_manifest(name, name, json!({}))).await.unwrap();
        if host.is_some() {
            // They have no disks: bound and refused is all that they are here.
            story.snapshot_is(name, "False", "NoDisks").await;
            story.vm_is(name, "True", "Running").await;
            story.volume_is(name, "True", "Ready").await;
        }
    }
}

fn secret(name: &str, kind: &str, labels: Value) -> Secret {
    let account = json!({"kubernetes.io/service-account.name": "default"});
    let metadata = json!({"name": name, "labels": labels, "annotations": account});
    serde_json::from_value(json!({"metadata": metadata, "type": kind})).unwrap()
}

/// A secret that the administrator made.
async fn a_secret(story: &Story, namespace: &str, name: &str, labels: Value) -> Secret {
    let secrets = Api::<Secret>::namespaced(story.client.clone(), namespace);
    secrets.create(&PostParams::default(), &secret(name, "Opaque", labels)).await.unwrap()
}

async fn no_secret(story: &Story, namespace: &str, name: &str) {
    let secrets = Api::<Secret>::namespaced(story.client.clone(), namespace);
    secrets.delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn an_agent_writes_the_status_of_what_is_bound_to_it_and_nothing_else() {
    let story = Story::new("identity").await;
    bound(&story).await;
    let agent = client(&story.run, "node-a").await.unwrap();
    let mut table = Table { who: "agent of node-a", wrong: vec![], cells: 0 };

    let (vms, volumes) = (
        Api::<VirtualMachine>::namespaced(agent.clone(), "identity"),
        Api::<StorageVolume>::namespaced(agent.clone(), "identity"),
    );
    let snapshots = Api::<Snapshot>::namespaced(agent.clone(), "identity");
    let (pools, hosts) = (Api::<StoragePool>::all(agent.clone()), Api::<Host>::all(agent.clone()));
    let list = ListParams::default();
    table.cell("list machines", true, Api::<VirtualMachine>::all(agent.clone()).list(&list).await);
    table.cell("list volumes", true, Api::<StorageVolume>::all(agent.clone()).list(&list).await);
    table.cell("list snapshots", true, Api::<Snapshot>::all(agent.clone()).list(&list).await);
    table.cell("list pools", true, pools.list(&list).await);
    table.cell("list hosts", true, hosts.list(&list).await);

    let create = PostParams { dry_run: true, ..PostParams::default() };
    let reach = json!({"phase": "Running"});
    for (name, mine) in [("on-a", true), ("on-b", false), ("nowhere", false)] {
        table.cell(
            &format!("status of machine {name}"),
            mine,
            vms.patch_status(name, &dry(), &status("VirtualMachine", name, reach.clone())).await,
        );
        let ready = json!({"phase": "Ready"});
        table.cell(
            &format!("status of snapshot {name}"),
            mine,
            snapshots.patch_status(name, &dry(), &status("Snapshot", name, ready.clone())).await,
        );
        table.cell(
            &format!("status of volume {name}"),
            mine,
            volumes.patch_status(name, &dry(), &status("StorageVolume", name, ready)).await,
        );
        for field in [
            json!({"host": "node-b"}),
            json!({"host": "node-a", "phase": "Running"}),
            json!({"teardown": {"uid": "u", "policy": "Delete"}}),
            json!({"conditions": [{"type": "Scheduled", "status": "False", "reason": "X", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        ] {
            // Saying again which host it is bound to changes nothing.
            let allowed = mine && field["host"] == "node-a";
            let answer = snapshots.patch_status(name, &dry(), &status("Snapshot", name, without_phase(&field))).await;
            table.cell(&format!("{field} of snapshot {name}"), allowed, answer);
            let answer = vms.patch_status(name, &dry(), &status("VirtualMachine", name, field.clone())).await;
            table.cell(&format!("{field} of machine {name}"), allowed, answer);
        }
        let claim = json!({"claimedBy": {"name": "x", "uid": "u"}});
        table.cell(
            &format!("claim of volume {name}"),
            false,
            volumes.patch_status(name, &dry(), &status("StorageVolume", name, claim)).await,
        );
        let spec = Patch::Merge(json!({"spec": {"powerState": "Stopped"}}));
        let merge = PatchParams { dry_run: true, ..PatchParams::default() };
        table.cell(&format!("spec of machine {name}"), false, vms.patch(name, &merge, &spec).await);
        let finalizers = Patch::Merge(json!({"metadata": {"finalizers": []}}));
        table.cell(&format!("finalizers of machine {name}"), false, vms.patch(name, &merge, &finalizers).await);
        let delete = DeleteParams { dry_run: true, ..DeleteParams::default() };
        table.cell(&format!("delete machine {name}"), false, vms.delete(name, &delete).await);
        table.cell(&format!("delete volume {name}"), false, volumes.delete(name, &delete).await);
        table.cell(&format!("delete snapshot {name}"), false, snapshots.delete(name, &delete).await);
        let owners = Patch::Merge(json!({"metadata": {"ownerReferences": []}}));
        table.cell(&format!("owners of snapshot {name}"), false, snapshots.patch(name, &merge, &owners).await);
        let policy = Patch::Merge(json!({"spec": {"deletionPolicy": "Retain"}}));
        table.cell(&format!("spec of snapshot {name}"), false, snapshots.patch(name, &merge, &policy).await);
    }
    table.cell(
        "status of a pool",
        false,
        pools.patch_status("identity", &dry(), &status("StoragePool", "identity", json!({"volumes": 1}))).await,
    );
    for (name, mine) in [("node-a", true), ("node-b", false)] {
        table.cell(
            &format!("status of host {name}"),
            mine,
            hosts.patch_status(name, &dry(), &status("Host", name, json!({"arch": "x"}))).await,
        );
        let leases = Api::<Lease>::namespaced(agent.clone(), HOSTS_NAMESPACE);
        let lease = Patch::Apply(
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {"holderIdentity": "x"}}),
        );
        table.cell(&format!("lease of host {name}"), mine, leases.patch(name, &dry(), &lease).await);
        let delete = DeleteParams { dry_run: true, ..DeleteParams::default() };
        table.cell(&format!("delete lease of host {name}"), false, leases.delete(name, &delete).await);
        let place = host_namespace(name);
        let canary = a_secret(&story, &place, "identity-canary", json!({})).await;
        let secrets = Api::<Secret>::namespaced(agent.clone(), &place);
        table.cell(&format!("a secret of host {name}"), mine, secrets.get("identity-canary").await);
        table.cell(&format!("all secrets of host {name}"), false, secrets.list(&list).await);
        table.cell(&format!("write a secret of host {name}"), false, secrets.create(&create, &canary).await);
        table.cell(&format!("delete a secret of host {name}"), false, secrets.delete("identity-canary", &delete).await);
        no_secret(&story, &place, "identity-canary").await;
        let accounts = Api::<ServiceAccount>::namespaced(agent.clone(), HOSTS_NAMESPACE);
        let request = serde_json::from_value(json!({"spec": {"audiences": []}})).unwrap();
        table.cell(
            &format!("token of host {name}"),
            false,
            accounts.create_token_request(name, &PostParams::default(), &request).await,
        );
    }
    a_secret(&story, "identity", "mine", json!({})).await;
    table.cell("a user's secret", false, Api::<Secret>::namespaced(agent.clone(), "identity").get("mine").await);
    table.cell("secrets of a namespace", false, Api::<Secret>::namespaced(agent.clone(), "identity").list(&list).await);
    table.cell("all secrets", false, Api::<Secret>::all(agent.clone()).list(&list).await);
    table.cell("nodes", false, Api::<Node>::all(agent.clone()).list(&list).await);
    table.cell("namespaces", false, Api::<Namespace>::all(agent.clone()).list(&list).await);
    table.cell("kube-system", true, Api::<Namespace>::all(agent).get("kube-system").await);
    table.check();
    story.end().await;
}

#[tokio::test]
async fn the_controller_changes_no_spec_and_deletes_only_what_machines_own() {
    let story = Story::alone("rights").await;
    story.apply(story.bare("web", json!({"powerState": "Stopped"}))).await.unwrap();
    story.apply(story.volume_manifest("mine", json!({"capacity": "1Mi"}))).await.unwrap();
    let controller: Client = client(&story.run, "controller").await.unwrap();
    let mut table = Table { who: "controller", wrong: vec![], cells: 0 };
    let vms = Api::<VirtualMachine>::namespaced(controller.clone(), "rights");
    let volumes = Api::<StorageVolume>::namespaced(controller.clone(), "rights");
    let merge = PatchParams { dry_run: true, ..PatchParams::default() };
    let delete = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let create = PostParams { dry_run: true, ..PostParams::default() };
    table.cell(
        "label of a machine",
        true,
        vms.patch("web", &merge, &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}))).await,
    );
    table.cell(
        "spec of a machine",
        false,
        vms.patch("web", &merge, &Patch::Merge(json!({"spec": {"powerState": "Running"}}))).await,
    );
    table.cell("delete a machine", false, vms.delete("web", &delete).await);
    story.apply(story.snapshot_manifest("before", "web", json!({}))).await.unwrap();
    let snapshots = Api::<Snapshot>::namespaced(controller.clone(), "rights");
    table.cell("delete a snapshot", false, snapshots.delete("before", &delete).await);
    let policy = Patch::Merge(json!({"spec": {"deletionPolicy": "Retain"}}));
    table.cell("spec of a snapshot", false, snapshots.patch("before", &merge, &policy).await);
    table.cell("delete a user's volume", false, volumes.delete("mine", &delete).await);
    let hosts = Api::<Host>::all(controller.clone());
    table.cell("delete a host", false, hosts.delete("node-a", &delete).await);
    table.cell(
        "spec of a host",
        false,
        hosts.patch("node-a", &merge, &Patch::Merge(json!({"spec": {"schedulable": false}}))).await,
    );
    // It would take the secrets below for stale copies.
    let pid = story.pid("controller");
    story.hold("controller");
    let (users, place) = (Api::<Secret>::namespaced(controller.clone(), "rights"), host_namespace("node-a"));
    let copies = Api::<Secret>::namespaced(controller.clone(), &place);
    let (ours, list) = (json!({"virtfleet.dev/copy-for": "StorageVolume"}), ListParams::default());
    let mine = a_secret(&story, "rights", "mine", ours.clone()).await;
    table.cell("a user's secret", true, users.get("mine").await);
    table.cell("users' secrets", false, users.list(&list).await);
    table.cell("all secrets", false, Api::<Secret>::all(controller.clone()).list(&list).await);
    table.cell("copies of a host", true, copies.list(&list).await);
    let foreign = a_secret(&story, &place, "rights-foreign", json!({})).await;
    let labelled = a_secret(&story, &place, "rights-ours", ours.clone()).await;
    for (what, secret, allowed) in [
        ("make a copy", secret("rights-new", "Opaque", ours.clone()), true),
        ("make a secret of no volume", secret("rights-new", "Opaque", json!({})), false),
        ("make an account's token", secret("rights-new", "kubernetes.io/service-account-token", ours.clone()), false),
    ] {
        table.cell(what, allowed, copies.create(&create, &secret).await);
    }
    table.cell("copy to a user", false, users.create(&create, &secret("rights-new", "Opaque", ours.clone())).await);
    table.cell("change a user's secret", false, users.replace("mine", &create, &mine).await);
    table.cell("delete a user's secret", false, users.delete("mine", &delete).await);
    table.cell("change a copy", true, copies.replace("rights-ours", &create, &labelled).await);
    let disguised = Secret { metadata: ObjectMeta { labels: labelled.metadata.labels, ..foreign.metadata }, ..foreign };
    table.cell("take a foreign secret", false, copies.replace("rights-foreign", &create, &disguised).await);
    table.cell("delete a copy", true, copies.delete("rights-ours", &delete).await);
    table.cell("delete a foreign secret", false, copies.delete("rights-foreign", &delete).await);
    no_secret(&story, &place, "rights-foreign").await;
    no_secret(&story, &place, "rights-ours").await;
    let namespace = |name: &str| serde_json::from_value::<Namespace>(json!({"metadata": {"name": name}})).unwrap();
    let namespaces = Api::<Namespace>::all(controller.clone());
    table.cell(
        "make a host's namespace",
        true,
        namespaces.create(&create, &namespace("virtfleet-host-00000000")).await,
    );
    table.cell("make another namespace", false, namespaces.create(&create, &namespace("shop")).await);
    let binding = |role: &str| {
        serde_json::from_value::<RoleBinding>(json!({"metadata": {"name": "x"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}}))
        .unwrap()
    };
    let own = Api::<RoleBinding>::namespaced(controller.clone(), &host_namespace("node-a"));
    table.cell("bind a host to its secrets", true, own.create(&create, &binding("virtfleet-host-secrets")).await);
    table.cell("bind a host to more", false, own.create(&create, &binding("cluster-admin")).await);
    table.cell("let itself copy", true, own.create(&create, &binding("virtfleet-secret-copies")).await);
    let other = Api::<RoleBinding>::namespaced(controller, "rights");
    table.cell("let itself copy elsewhere", false, other.create(&create, &binding("virtfleet-secret-copies")).await);
    table.cell("bind elsewhere", false, other.create(&create, &binding("virtfleet-host-secrets")).await);
    story.release("controller");
    story.back("controller", pid).await;
    table.check();
    story.end().await;
}
