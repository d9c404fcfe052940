//! Every verb on every kind, in every namespace that matters, for the agents' pods, for an agent and for the controller: what the table does
//! not name is refused. What the policies narrow further is in `identity`.

use crds::HOSTS_NAMESPACE;
use e2e::story::{Story, client, token_of};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use plan::names::host_namespace;
use std::collections::BTreeSet;

const OURS: &str = "virtfleet.dev";
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const KINDS: [(&str, &str); 21] = [
    (OURS, "hosts"),
    (OURS, "hosts/status"),
    (OURS, "storagepools"),
    (OURS, "storagepools/status"),
    (OURS, "storagevolumes"),
    (OURS, "storagevolumes/status"),
    (OURS, "virtualmachines"),
    (OURS, "virtualmachines/status"),
    ("coordination.k8s.io", "leases"),
    ("events.k8s.io", "events"),
    ("", "secrets"),
    ("", "configmaps"),
    ("", "pods"),
    ("", "nodes"),
    ("", "namespaces"),
    ("", "serviceaccounts"),
    ("", "serviceaccounts/token"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
];

/// Verbs on a kind in a namespace (`*`: everywhere) that are allowed.
type Row = (&'static str, &'static str, &'static str);

const AGENT: [Row; 10] = [
    ("hosts", "*", "get list watch"),
    ("storagepools", "*", "get list watch"),
    ("storagevolumes", "*", "get list watch"),
    ("virtualmachines", "*", "get list watch"),
    ("hosts/status", "*", "patch"),
    ("storagevolumes/status", "*", "patch"),
    ("virtualmachines/status", "*", "patch"),
    ("events", "*", "create patch"),
    ("leases", "hosts", "get create patch"),
    ("secrets", "own", "get"),
];

/// Of all nodes' pods; the policy narrows it to the token of the pod's own node (`tokens`).
const POD: [Row; 1] = [("serviceaccounts/token", "hosts", "create")];

const CONTROLLER: [Row; 19] = [
    ("hosts", "*", "get list watch patch create"),
    ("storagepools", "*", "get list watch patch"),
    ("storagevolumes", "*", "get list watch patch create delete"),
    ("virtualmachines", "*", "get list watch patch"),
    ("hosts/status", "*", "patch"),
    ("storagepools/status", "*", "patch"),
    ("storagevolumes/status", "*", "patch"),
    ("virtualmachines/status", "*", "patch"),
    ("events", "*", "create patch"),
    ("nodes", "*", "get list watch"),
    ("namespaces", "*", "get list watch create"),
    ("rolebindings", "*", "create get"),
    ("customresourcedefinitions", "*", "get"),
    ("leases", "system", "get create update"),
    ("leases", "hosts", "get list watch delete"),
    ("serviceaccounts", "hosts", "get create delete"),
    // Users' secrets by name; copies of them where hosts read them.
    ("secrets", "*", "get"),
    ("secrets", "own", "list create update delete"),
    ("secrets", "other", "list create update delete"),
];

fn is_allowed(table: &[Row], kind: &str, place: &str, verb: &str) -> bool {
    let fits = |row: &&Row| row.0 == kind && (row.1 == "*" || row.1 == place);
    table.iter().filter(fits).any(|row| row.2.split(' ').any(|allowed| allowed == verb))
}

async fn may(client: &Client, group: &str, kind: &str, namespace: &str, verb: &str) -> bool {
    let (resource, subresource) = kind.split_once('/').map_or((kind, None), |(kind, sub)| (kind, Some(sub.to_owned())));
    let attributes = ResourceAttributes {
        group: Some(group.into()),
        resource: Some(resource.into()),
        subresource,
        namespace: Some(namespace.into()),
        verb: Some(verb.into()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let api = Api::<SelfSubjectAccessReview>::all(client.clone());
    api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

#[tokio::test]
async fn each_account_may_do_what_its_table_says_and_nothing_else() {
    let story = Story::new("allrights").await;
    let places = [
        ("user", "allrights".to_owned()),
        ("cluster", String::new()),
        ("kube", "kube-system".into()),
        ("system", "virtfleet-system".into()),
        ("hosts", HOSTS_NAMESPACE.into()),
        ("own", host_namespace("node-a")),
        ("other", host_namespace("node-b")),
    ];
    let mut wrong = BTreeSet::new();
    let pods = ("virtfleet-system", "virtfleet-agent");
    let pod = story.with_token(&token_of(&story.client, pods, None, 3600).await.unwrap());
    let (agent, controller) =
        (client(&story.run, "node-a").await.unwrap(), client(&story.run, "controller").await.unwrap());
    for (who, client, table) in
        [("pod", pod, &POD[..]), ("node-a", agent, &AGENT[..]), ("controller", controller, &CONTROLLER[..])]
    {
        for (group, kind) in KINDS {
            for (place, namespace) in &places {
                for verb in VERBS {
                    let (wanted, got) =
                        (is_allowed(table, kind, place, verb), may(&client, group, kind, namespace, verb).await);
                    if wanted != got {
                        wrong.insert(format!("{who}: {verb} {kind} in {place}: {got}, should be {wanted}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    story.end().await;
}
