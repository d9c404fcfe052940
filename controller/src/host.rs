//! A Host's identity: its account, its namespace for secrets, and what is said of it while it is lost.

use crate::context::{Context, MANAGER};
use crate::{finalizer, import_secret, teardown};
use crds::conditions::{Builder, Status, Type};
use crds::host::{Host, HostState, HostStatus};
use crds::{HOSTS_NAMESPACE, TeardownPolicy};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use kube::api::{DeleteParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use plan::names;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shell::Error;
use shell::error::is_code;
use shell::retry::Case;
use shell::status::apply;
use std::fmt::Debug;
use std::sync::Arc;

/// What a host's account may do in the host's namespace.
const HOST_ROLE: &str = "virtfleet-host-secrets";
/// What the controller may do there. Its account has the name of its field manager.
const COPIES_ROLE: &str = "virtfleet-secret-copies";

/// One pass.
pub async fn pass(host: Arc<Host>, context: Arc<Context>) -> Result<Case, Error> {
    let api = Api::<Host>::all(context.client.clone());
    if host.metadata.deletion_timestamp.is_some() {
        return go(&context, &api, &host).await;
    }
    if !finalizer::is_on(&*host) {
        finalizer::put(&context, &api, &*host).await?;
        return Ok(Case::Converged);
    }
    identify(&context, &host).await?;
    import_secret::sweep(&context, &host.name_any()).await?;
    if context.is_lost(&host.name_any()) {
        tell_lost(&context, &api, &host).await?;
    }
    Ok(Case::Converged)
}

/// Account, namespace and the rights to secrets there, each made when it is not there.
async fn identify(context: &Context, host: &Host) -> Result<(), Error> {
    let name = host.name_any();
    let own = names::host_namespace(&name);
    let mut account = ServiceAccount::default();
    account.metadata.name = Some(name.clone());
    ensure(context, HOSTS_NAMESPACE, &account).await?;
    if !has_namespace(context, &own) {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(own.clone());
        namespace.metadata.labels = Some([("virtfleet.dev/secrets-of".to_owned(), name.clone())].into());
        let api = Api::<Namespace>::all(context.client.clone());
        made(context, api.create(&PostParams::default(), &namespace).await, "make the host's namespace")?;
    }
    // The host reads what lies there; the controller writes it.
    bind(context, &own, HOST_ROLE, HOST_ROLE, (HOSTS_NAMESPACE, &name)).await?;
    bind_controller(context, &own).await
}

fn has_namespace(context: &Context, name: &str) -> bool {
    let stands = |namespace: &Namespace| namespace.metadata.deletion_timestamp.is_none();
    context.stores.namespaces.state().iter().any(|namespace| namespace.name_any() == name && stands(namespace))
}

async fn bind_controller(context: &Context, within: &str) -> Result<(), Error> {
    // Of a controller that was installed in another namespace before, a binding of its own may be left.
    let name = format!("{COPIES_ROLE}.{}", context.namespace);
    bind(context, within, &name, COPIES_ROLE, (&context.namespace, MANAGER)).await
}

/// Gives the ServiceAccount (namespace and name) the ClusterRole within one namespace.
async fn bind(
    context: &Context,
    within: &str,
    name: &str,
    role: &str,
    (namespace, account): (&str, &str),
) -> Result<(), Error> {
    let mut binding = RoleBinding {
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "ClusterRole".into(),
            name: role.into(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: account.into(),
            namespace: Some(namespace.into()),
            ..Subject::default()
        }]),
        ..RoleBinding::default()
    };
    binding.metadata.name = Some(name.into());
    ensure(context, within, &binding).await
}

async fn ensure<K>(context: &Context, namespace: &str, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api = Api::<K>::namespaced(context.client.clone(), namespace);
    if api.get_opt(&object.name_any()).await.map_err(Error::api("look for the host's account"))?.is_some() {
        return Ok(());
    }
    made(context, api.create(&PostParams::default(), object).await, "make the host's account")
}

fn made<K: Resource<DynamicType = ()>>(
    context: &Context,
    answer: kube::Result<K>,
    act: &'static str,
) -> Result<(), Error> {
    context.metrics.write(&K::kind(&()));
    match answer {
        Ok(_) => Ok(()),
        Err(error) if is_code(&error, 409) => Ok(()),
        Err(error) => Err(Error::api(act)(error)),
    }
}

/// Takes `state` and Ready from the silent agent, once; it takes them back with its first word.
async fn tell_lost(context: &Context, api: &Api<Host>, host: &Host) -> Result<(), Error> {
    let none = HostStatus::default();
    let stored = host.status.as_ref().unwrap_or(&none);
    let generation = host.metadata.generation.unwrap_or_default();
    let conditions = Builder::new(&stored.conditions, generation, Timestamp::now())
        .set(
            Type::Ready,
            Status::Unknown,
            "HostLost",
            "its agent has not renewed its Lease; what runs there probably still does",
        )
        .build();
    let wanted = HostStatus { state: Some(HostState::Unknown), conditions, ..HostStatus::default() };
    let ours = HostStatus {
        state: stored.state,
        conditions: stored.conditions.iter().filter(|c| c.type_ == Type::Ready.as_str()).cloned().collect(),
        ..HostStatus::default()
    };
    if apply(api, MANAGER, host, (&ours, &wanted), &context.metrics).await? {
        context.events.turned(host, &stored.conditions, &wanted.conditions).await;
    }
    Ok(())
}

/// A Host that is deleted loses its account, its heartbeat and its copies of secrets. When the CRD goes, nothing is taken from it. An
/// annotation changes none of that: what it would leave lies in the cluster, and placement would wait for that heartbeat for ever.
async fn go(context: &Context, api: &Api<Host>, host: &Host) -> Result<Case, Error> {
    let Some((fresh, policy)) = teardown::decide(context, api, host, |_| TeardownPolicy::Delete).await? else {
        return Ok(Case::Converged);
    };
    if policy != TeardownPolicy::Keep {
        let name = host.name_any();
        remove::<ServiceAccount>(context, &name).await?;
        remove::<Lease>(context, &name).await?;
        let own = names::host_namespace(&name);
        if has_namespace(context, &own) {
            bind_controller(context, &own).await?;
            import_secret::remove_all(context, &name).await?;
        }
    }
    finalizer::take_off(context, api, &fresh).await?;
    Ok(Case::Converged)
}

async fn remove<K>(context: &Context, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(context.client.clone(), HOSTS_NAMESPACE);
    context.metrics.write(&K::kind(&()));
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(error) if is_code(&error, 404) => Ok(()),
        Err(error) => Err(Error::api("remove the host's account")(error)),
    }
}
