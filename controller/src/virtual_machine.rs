//! A VirtualMachine: its template volumes, its place, and how it goes.

use crate::context::{Context, MANAGER};
use crate::stores::host_of;
use crate::{finalizer, snapshot, storage_volume, teardown};
use crds::storage_volume::{StorageVolume, StorageVolumeSpec};
use crds::virtual_machine::{DeletionPolicy, TemplateSpec, VirtualMachine};
use crds::{FINALIZER, HOSTS_NAMESPACE, Teardown, TeardownPolicy};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use plan::placement::{Need, place};
use plan::storage_volume::binding::binding;
use plan::teardown::Next;
use plan::virtual_machine::uses::{self, Binding};
use shell::Error;
use shell::error::is_code;
use shell::retry::Case;
use shell::status::{apply, beside};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// One pass.
pub async fn pass(vm: Arc<VirtualMachine>, context: Arc<Context>) -> Result<Case, Error> {
    let api = beside(&context.client, &*vm);
    if vm.metadata.deletion_timestamp.is_some() {
        return go(&context, &api, &vm).await;
    }
    let vm = if finalizer::is_on(&*vm) { vm } else { Arc::new(finalizer::put(&context, &api, &*vm).await?) };
    make_volumes(&context, &vm).await?;
    match host_of(&vm) {
        Some(host) => {
            report(&context, &api, &vm, &Binding::Bound(host.to_owned()), None).await?;
            Ok(Case::Converged)
        }
        None => bind(&context, &api, &vm).await,
    }
}

/// Chooses a host and writes it down. One machine at a time chooses; the room is promised to it before another may.
async fn bind(context: &Context, api: &Api<VirtualMachine>, vm: &VirtualMachine) -> Result<Case, Error> {
    let uid = vm.uid().unwrap_or_default();
    let mut room = context.room.lock().await;
    let binding = match (room.promised_to(&uid), need(context, vm)) {
        // The store is behind; the API server answers 409 until it is not.
        (Some(host), _) => Binding::Bound(host.to_owned()),
        (None, Err(waiting)) => waiting,
        (None, Ok(need)) => match place(&need, &room.candidates(context)) {
            Ok(host) => Binding::Bound(host),
            Err(nowhere) => Binding::Waiting { reason: nowhere.reason, message: nowhere.message },
        },
    };
    if let Some(left) = context.passing.hold(&uid, uses::may_pass(vm, &binding), Instant::now()) {
        return Ok(Case::Until(Timestamp::now() + SignedDuration::try_from(left).unwrap_or_default()));
    }
    let case = match &binding {
        Binding::Bound(host) => {
            room.promise(uid.clone(), host.clone(), uses::demand(vm));
            Case::Converged
        }
        Binding::Waiting { .. } => Case::Dependency,
    };
    drop(room);
    if let Err(error) = report(context, api, vm, &binding, None).await {
        context.room.lock().await.take_back(&uid);
        return Err(error);
    }
    Ok(case)
}

async fn report(
    context: &Context,
    api: &Api<VirtualMachine>,
    vm: &VirtualMachine,
    binding: &Binding,
    teardown: Option<Teardown>,
) -> Result<(), Error> {
    let lost = matches!(binding, Binding::Bound(host) if context.is_lost(host) || !context.is_known(host));
    let (wanted, summary) = uses::bound(vm, binding, teardown, lost, Timestamp::now());
    let stored = vm.status.clone().unwrap_or_default();
    let ours = uses::controllers(&stored, summary);
    if apply(api, MANAGER, vm, (&ours, &wanted), &context.metrics).await? {
        context.events.turned(vm, &stored.conditions, &wanted.conditions).await;
    }
    Ok(())
}

/// Makes the volumes of the machine's templates that are not there yet, each with its finalizer.
async fn make_volumes(context: &Context, vm: &VirtualMachine) -> Result<(), Error> {
    let api: Api<StorageVolume> = beside(&context.client, vm);
    for disk in &vm.spec.disks {
        let Some(template) = &disk.volume_template else { continue };
        let name = plan::names::disk_volume(&vm.name_any(), disk);
        if volume(context, vm, &name).is_some() {
            continue;
        }
        let mut made = StorageVolume::new(&name, spec(&template.spec));
        made.metadata.finalizers = Some(vec![FINALIZER.into()]);
        made.metadata.owner_references = Some(vec![OwnerReference { block_owner_deletion: None, ..owner(vm) }]);
        context.metrics.write("StorageVolume");
        match api.create(&PostParams::default(), &made).await {
            Ok(_) => tracing::info!("made volume {}/{name} of its template", vm.namespace().unwrap_or_default()),
            Err(error) if is_code(&error, 409) => {}
            Err(error) => return Err(Error::api("make a volume of its template")(error)),
        }
    }
    Ok(())
}

/// The machine as the owner of what it makes.
pub fn owner(vm: &VirtualMachine) -> OwnerReference {
    OwnerReference {
        api_version: VirtualMachine::api_version(&()).into(),
        kind: VirtualMachine::kind(&()).into(),
        name: vm.name_any(),
        uid: vm.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn spec(template: &TemplateSpec) -> StorageVolumeSpec {
    let TemplateSpec { storage_pool, capacity, format, allocation, source, deletion_policy } = template.clone();
    StorageVolumeSpec { storage_pool, host: None, capacity, format, allocation, source, deletion_policy }
}

fn volume(context: &Context, vm: &VirtualMachine, name: &str) -> Option<Arc<StorageVolume>> {
    context.stores.volumes.get(&ObjectRef::new(name).within(&vm.namespace().unwrap_or_default()))
}

/// What the machine needs of a host, once its volumes and the hosts' reports allow an answer.
fn need(context: &Context, vm: &VirtualMachine) -> Result<Need, Binding> {
    let waiting = |reason, message: String| Err(Binding::Waiting { reason, message });
    let known_on = known_on(context, vm);
    let (cpu, memory) = uses::demand(vm);
    let mut need = Need { cpu, memory, known_on, ..Need::default() };
    if need.known_on.is_empty()
        && let Some(host) = unreported(context)
    {
        // It may run this very machine.
        let gone = if context.is_known(&host) {
            format!("delete Host {host}")
        } else {
            format!("there is no Host {host}: make it, or delete Lease {host} in {HOSTS_NAMESPACE}")
        };
        let message = format!("host {host} has not reported its domains yet; if it is gone for good: {gone}");
        return waiting("WaitingForHosts", message);
    }
    if let Some(placement) = &vm.spec.placement {
        need.host.clone_from(&placement.host);
        need.selector.clone_from(&placement.host_selector);
    }
    for (name, writes) in uses::volumes(vm) {
        let Some(volume) = volume(context, vm, &name) else {
            return waiting("VolumeNotFound", format!("there is no StorageVolume {name}; make it"));
        };
        let template = vm.spec.disks.iter().any(|d| d.volume_template.is_some() && d_name(vm, d) == name);
        let owned = volume.owner_references().iter().any(|o| Some(&o.uid) == vm.uid().as_ref());
        if template && !owned {
            let message = format!(
                "StorageVolume {name} exists and was not made for this machine; give the disk another name, or name it in spec.disks[].volume"
            );
            return waiting("VolumeConflict", message);
        }
        let machines = context.stores.machines.state();
        let bound = binding(&volume, machines.iter().filter(|m| m.namespace() == vm.namespace()).map(|m| &**m));
        let claimed = volume.status.as_ref().and_then(|status| status.claimed_by.clone());
        if writes && claimed.as_ref().map(|claim| &claim.uid) != vm.uid().as_ref() {
            let holder = claimed.map_or_else(|| "nobody yet".into(), |claim| format!("machine {}", claim.name));
            return waiting("VolumeNotClaimed", format!("volume {name} may be written by {holder}"));
        }
        let pool = context.stores.pools.get(&ObjectRef::new(&volume.spec.storage_pool));
        let shared = pool.is_some_and(|pool| pool.spec.shared);
        match bound.host {
            Some(host) if !shared => drop(need.volumes.insert(name, host)),
            Some(_) => {}
            // Two readers of a volume without a place must not choose two places for it.
            None if bound.consumer.as_ref() != Some(&vm.name_any()) => {
                return waiting("VolumeNotPlaced", format!("volume {name} is placed with another machine first"));
            }
            None => {}
        }
        need.pools.insert(volume.spec.storage_pool.clone());
    }
    Ok(need)
}

fn d_name(vm: &VirtualMachine, disk: &crds::virtual_machine::Disk) -> String {
    plan::names::disk_volume(&vm.name_any(), disk)
}

/// Hosts that report a domain with the machine's mark.
fn known_on(context: &Context, vm: &VirtualMachine) -> BTreeSet<String> {
    let (namespace, name) = (vm.namespace().unwrap_or_default(), vm.name_any());
    let hosts = context.stores.hosts.state();
    let has = |host: &&Arc<crds::Host>| {
        let domains = host.status.iter().flat_map(|status| &status.domains);
        domains.into_iter().any(|domain| domain.namespace == namespace && domain.name == name)
    };
    hosts.iter().filter(has).map(|host| host.name_any()).collect()
}

/// A host that once had an agent and whose domains nobody knows.
fn unreported(context: &Context) -> Option<String> {
    let hosts = context.stores.hosts.state();
    let reported = |name: &str| {
        let host = hosts.iter().find(|host| host.name_any() == name);
        host.is_some_and(|host| host.status.as_ref().is_some_and(|status| status.unmanaged_domains.is_some()))
    };
    context.stores.leases.state().iter().map(|lease| lease.name_any()).filter(|name| !reported(name)).min()
}

async fn go(context: &Context, api: &Api<VirtualMachine>, vm: &VirtualMachine) -> Result<Case, Error> {
    let by_spec = |vm: &VirtualMachine| match vm.spec.deletion_policy {
        DeletionPolicy::Delete => TeardownPolicy::Delete,
        DeletionPolicy::Orphan => TeardownPolicy::Orphan,
    };
    let Some((fresh, policy)) = teardown::decide(context, api, vm, by_spec).await? else {
        return Ok(Case::Converged);
    };
    // A machine whose status was lost is torn down where it is known to be.
    let known = known_on(context, &fresh);
    let host = host_of(&fresh).map(str::to_owned).or_else(|| known.into_iter().next());
    let host_exists = teardown::host_exists(context, host.as_deref()).await?;
    let stored = fresh.status.as_ref().and_then(|status| status.teardown.as_ref());
    let uid = fresh.uid().unwrap_or_default();
    let next = plan::teardown::next(&uid, policy, host.is_some(), host_exists, stored);
    let domain = plan::names::domain(&fresh.namespace().unwrap_or_default(), &fresh.name_any());
    teardown::tell(context, &fresh, &next, host.as_deref(), &format!("domain {domain}")).await;
    match (next, host) {
        (Next::Release(policy) | Next::LetGo(policy), _) | (Next::Ask(Teardown { policy: Some(policy), .. }), None) => {
            release(context, api, &fresh, policy).await?;
        }
        (Next::Ask(teardown), Some(host)) => {
            report(context, api, &fresh, &Binding::Bound(host), Some(teardown)).await?;
        }
        (Next::Ask(_), None) => {}
    }
    Ok(Case::Dependency)
}

/// Lets the machine go, after its volumes were told what that means for them.
async fn release(
    context: &Context,
    api: &Api<VirtualMachine>,
    vm: &VirtualMachine,
    policy: TeardownPolicy,
) -> Result<(), Error> {
    if let Some(theirs) = plan::teardown::passed_down(policy) {
        let volumes: Api<StorageVolume> = beside(&context.client, vm);
        let all = context.stores.volumes.state();
        let made = |v: &&Arc<StorageVolume>| v.owner_references().iter().any(|o| Some(&o.uid) == vm.uid().as_ref());
        for volume in all.iter().filter(made) {
            let told = volume.status.as_ref().and_then(|status| status.teardown.as_ref());
            if told.is_some_and(|teardown| teardown.policy == Some(theirs) && teardown.uid == volume.uid()) {
                continue;
            }
            let teardown = Teardown { uid: volume.uid(), policy: Some(theirs), done: None };
            storage_volume::report(context, &volumes, volume, Some(teardown)).await?;
        }
        snapshot::pass_down(context, vm, theirs).await?;
    }
    finalizer::take_off(context, api, vm).await
}
