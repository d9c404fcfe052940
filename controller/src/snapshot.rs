//! A Snapshot: whose it is, on which host, and how it goes.

use crate::context::{Context, MANAGER};
use crate::{finalizer, teardown};
use crds::snapshot::Snapshot;
use crds::virtual_machine::VirtualMachine;
use crds::{Teardown, TeardownPolicy};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use plan::snapshot::binding::{self, Binding, binding};
use plan::teardown::Next;
use shell::Error;
use shell::retry::Case;
use shell::status::{apply, beside};
use std::sync::Arc;

/// One pass.
pub async fn pass(snapshot: Arc<Snapshot>, context: Arc<Context>) -> Result<Case, Error> {
    let api = beside(&context.client, &*snapshot);
    if snapshot.metadata.deletion_timestamp.is_some() {
        return go(&context, &api, &snapshot).await;
    }
    let machine = machine(&context, &snapshot);
    let snapshot = match &machine {
        // A machine that goes takes no new ones along.
        Some(vm) if !finalizer::is_on(&*snapshot) && vm.metadata.deletion_timestamp.is_none() => {
            let owner = OwnerReference { controller: None, ..crate::virtual_machine::owner(vm) };
            Arc::new(finalizer::put_owned(&context, &api, &*snapshot, owner).await?)
        }
        Some(_) | None => snapshot,
    };
    // Without its finalizer it is bound to nothing: nobody would be asked when it goes.
    let binding = match finalizer::is_on(&*snapshot) {
        true => binding(&snapshot, machine.as_deref()),
        false => Binding::Waiting {
            reason: if machine.is_some() { "MachineTerminating" } else { "MachineNotFound" },
            message: format!("VirtualMachine {} is not there or is being deleted", snapshot.spec.virtual_machine),
        },
    };
    report(&context, &api, &snapshot, &binding, passed_down(&snapshot)).await?;
    Ok(match binding {
        Binding::Bound(_) => Case::Converged,
        Binding::Waiting { .. } => Case::Dependency,
    })
}

fn machine(context: &Context, snapshot: &Snapshot) -> Option<Arc<VirtualMachine>> {
    let key = ObjectRef::new(&snapshot.spec.virtual_machine).within(&snapshot.namespace().unwrap_or_default());
    context.stores.machines.get(&key)
}

/// Writes the controller's whole part of the status.
///
/// # Errors
/// The API server's answer.
pub async fn report(
    context: &Context,
    api: &Api<Snapshot>,
    snapshot: &Snapshot,
    binding: &Binding,
    teardown: Option<Teardown>,
) -> Result<(), Error> {
    let lost = matches!(binding, Binding::Bound(host) if context.is_lost(host) || !context.is_known(host));
    let (wanted, summary) = binding::status(snapshot, binding, teardown, lost, Timestamp::now());
    let stored = snapshot.status.clone().unwrap_or_default();
    let ours = binding::controllers(&stored, summary);
    if apply(api, MANAGER, snapshot, (&ours, &wanted), &context.metrics).await? {
        context.events.turned(snapshot, &stored.conditions, &wanted.conditions).await;
    }
    Ok(())
}

/// What the snapshot's machine decided for it before it went.
fn passed_down(snapshot: &Snapshot) -> Option<Teardown> {
    let stored = snapshot.status.as_ref()?.teardown.clone()?;
    (stored.uid.is_some() && stored.uid == snapshot.uid()).then_some(Teardown { done: None, ..stored })
}

/// Tells the machine's snapshots what its own end means for them.
///
/// # Errors
/// The API server's answer.
pub async fn pass_down(context: &Context, vm: &VirtualMachine, policy: TeardownPolicy) -> Result<(), Error> {
    let api: Api<Snapshot> = beside(&context.client, vm);
    let all = context.stores.snapshots.state();
    let of = |s: &&Arc<Snapshot>| s.owner_references().iter().any(|o| Some(&o.uid) == vm.uid().as_ref());
    for snapshot in all.iter().filter(of) {
        let told = passed_down(snapshot).is_some_and(|teardown| teardown.policy == Some(policy));
        if !told {
            let teardown = Teardown { uid: snapshot.uid(), policy: Some(policy), done: None };
            report(context, &api, snapshot, &binding(snapshot, Some(vm)), Some(teardown)).await?;
        }
    }
    Ok(())
}

/// Host that a snapshot is on.
pub fn host_of(snapshot: &Snapshot) -> Option<&str> {
    snapshot.status.as_ref()?.host.as_deref()
}

async fn go(context: &Context, api: &Api<Snapshot>, snapshot: &Snapshot) -> Result<Case, Error> {
    let Some((fresh, policy)) = teardown::decide(context, api, snapshot, binding::policy).await? else {
        return Ok(Case::Converged);
    };
    let policy = match passed_down(&fresh).and_then(|teardown| teardown.policy) {
        Some(TeardownPolicy::Keep) => TeardownPolicy::Keep,
        Some(_) | None => policy,
    };
    let host = host_of(&fresh).map(str::to_owned);
    let host_exists = teardown::host_exists(context, host.as_deref()).await?;
    let stored = fresh.status.as_ref().and_then(|status| status.teardown.as_ref());
    let uid = fresh.uid().unwrap_or_default();
    let next = plan::teardown::next(&uid, policy, host.is_some(), host_exists, stored);
    let domain = plan::names::domain(&fresh.namespace().unwrap_or_default(), &fresh.spec.virtual_machine);
    let left = format!("snapshot {} of domain {domain} and its files", fresh.name_any());
    teardown::tell(context, &fresh, &next, host.as_deref(), &left).await;
    match (next, host) {
        (Next::Ask(teardown), Some(host)) => {
            report(context, api, &fresh, &Binding::Bound(host), Some(teardown)).await?;
        }
        (Next::Release(_) | Next::LetGo(_) | Next::Ask(_), _) => finalizer::take_off(context, api, &fresh).await?,
    }
    Ok(Case::Dependency)
}
