//! The watches, and which change asks for a look at what else.

use crate::args::Args;
use crate::context::{Context, Queues, Stores};
use crate::{heartbeat, host, node, snapshot, storage_pool, storage_volume, virtual_machine};
use crds::{HOSTS_NAMESPACE, Host, Snapshot, StoragePool, StorageVolume, VirtualMachine};
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, store};
use kube::runtime::watcher::Config;
use kube::{Api, Client, ResourceExt};
use plan::storage_volume::secret;
use plan::virtual_machine::uses;
use shell::history::History;
use shell::metrics::Metrics;
use shell::queue::{Exit, queue, work};
use shell::watch::{Change, watch};
use std::sync::Arc;

/// A context with the ends of its stores and queues that only [`run`] holds.
pub struct Seed {
    context: Context,
    hosts: (Writer<Host>, Exit<Host>),
    pools: (Writer<StoragePool>, Exit<StoragePool>),
    volumes: (Writer<StorageVolume>, Exit<StorageVolume>),
    machines: (Writer<VirtualMachine>, Exit<VirtualMachine>),
    snapshots: (Writer<Snapshot>, Exit<Snapshot>),
    namespaces: Writer<Namespace>,
    leases: Writer<Lease>,
}

impl Seed {
    /// Makes stores and queues, and the context around them.
    pub fn new(client: Client, args: &Args, metrics: Arc<Metrics>, history: History) -> Seed {
        let ((hosts, hosts_writer), (host_queue, host_exit)) = (store(), queue());
        let ((pools, pools_writer), (pool_queue, pool_exit)) = (store(), queue());
        let ((volumes, volumes_writer), (volume_queue, volume_exit)) = (store(), queue());
        let ((machines, machines_writer), (machine_queue, machine_exit)) = (store(), queue());
        let ((snapshots, snapshots_writer), (snapshot_queue, snapshot_exit)) = (store(), queue());
        let ((namespaces, namespaces_writer), (leases, leases_writer)) = (store(), store());
        let stores = Stores { hosts, pools, volumes, machines, snapshots, namespaces, leases };
        let queues = Queues {
            hosts: host_queue,
            pools: pool_queue,
            volumes: volume_queue,
            machines: machine_queue,
            snapshots: snapshot_queue,
        };
        Seed {
            context: Context::new(client, args, metrics, history, stores, queues),
            hosts: (hosts_writer, host_exit),
            pools: (pools_writer, pool_exit),
            volumes: (volumes_writer, volume_exit),
            machines: (machines_writer, machine_exit),
            snapshots: (snapshots_writer, snapshot_exit),
            namespaces: namespaces_writer,
            leases: leases_writer,
        }
    }
}

/// Watches and works for ever.
pub async fn run(seed: Seed) {
    let Seed { context, hosts, pools, volumes, machines, snapshots, namespaces, leases } = seed;
    let context = Arc::new(context);
    let client = || context.client.clone();
    let history = || context.history.clone();
    let all = Config::default;
    let (c1, c2, c3, c4) = (context.clone(), context.clone(), context.clone(), context.clone());
    let (c5, c6, c7, c8) = (context.clone(), context.clone(), context.clone(), context.clone());
    let watches = [
        tokio::spawn(watch(Api::all(client()), all(), history(), hosts.0, move |change| host_changed(&c1, change))),
        tokio::spawn(watch(Api::all(client()), all(), history(), pools.0, move |change| pool_changed(&c2, change))),
        tokio::spawn(watch(Api::all(client()), all(), history(), volumes.0, move |change| volume_changed(&c3, change))),
        tokio::spawn(watch(Api::all(client()), all(), history(), machines.0, move |change| {
            machine_changed(&c4, change)
        })),
        tokio::spawn(watch(Api::all(client()), all(), history(), snapshots.0, move |change| {
            snapshot_changed(&c8, change)
        })),
        tokio::spawn(watch(Api::all(client()), all(), history(), namespaces, move |_| {
            c5.queues.volumes.push_all(c5.stores.volumes.state().iter().filter(|v| host_of_volume(v).is_none()));
        })),
        tokio::spawn(watch(Api::namespaced(client(), HOSTS_NAMESPACE), all(), history(), leases, |_| {})),
        tokio::spawn(node::keep(Api::<Node>::all(client()), c6)),
    ];
    // A decision on half of what there is would be a wrong one.
    let stores = &context.stores;
    let ready = async {
        let _ = tokio::join!(
            stores.hosts.wait_until_ready(),
            stores.pools.wait_until_ready(),
            stores.volumes.wait_until_ready(),
            stores.machines.wait_until_ready(),
            stores.snapshots.wait_until_ready(),
            stores.namespaces.wait_until_ready(),
            stores.leases.wait_until_ready(),
        );
    };
    ready.await;
    tracing::info!("working");
    let metrics = || context.metrics.clone();
    let work = async {
        tokio::join!(
            work(hosts.1, stores.hosts.clone(), context.clone(), metrics(), host::pass),
            work(pools.1, stores.pools.clone(), context.clone(), metrics(), storage_pool::pass),
            work(volumes.1, stores.volumes.clone(), context.clone(), metrics(), storage_volume::pass),
            work(machines.1, stores.machines.clone(), context.clone(), metrics(), virtual_machine::pass),
            work(snapshots.1, stores.snapshots.clone(), context.clone(), metrics(), snapshot::pass),
            heartbeat::listen(c7),
        )
    };
    tokio::select! {
        _ = work => {}
        _ = join_all(watches) => {}
    }
}

fn host_changed(context: &Context, change: Change<'_, Host>) {
    let (Change::Seen(host) | Change::Gone(host)) = change;
    context.queues.hosts.push(ObjectRef::from_obj(host));
    context.queues.pools.push_all(&context.stores.pools.state());
    // What is on a host that is gone, or there again, is told so. Else: room or readiness may have come; what waits there for its teardown
    // learns that its host is gone.
    let gone = matches!(change, Change::Gone(_));
    let name = host.name_any();
    let here = |of: Option<&str>| (gone || host.status.is_none()) && of == Some(&name);
    let waits = |vm: &&Arc<VirtualMachine>| {
        host_of(vm).is_none() || (gone && vm.metadata.deletion_timestamp.is_some()) || here(host_of(vm))
    };
    context.queues.machines.push_all(context.stores.machines.state().iter().filter(waits));
    let waits = |v: &&Arc<StorageVolume>| {
        host_of_volume(v).is_none() || (gone && v.metadata.deletion_timestamp.is_some()) || here(host_of_volume(v))
    };
    context.queues.volumes.push_all(context.stores.volumes.state().iter().filter(waits));
    let waits = |s: &&Arc<Snapshot>| s.metadata.deletion_timestamp.is_some() || here(snapshot::host_of(s));
    context.queues.snapshots.push_all(context.stores.snapshots.state().iter().filter(waits));
}

fn snapshot_changed(context: &Context, change: Change<'_, Snapshot>) {
    let (Change::Seen(snapshot) | Change::Gone(snapshot)) = change;
    context.queues.snapshots.push(ObjectRef::from_obj(snapshot));
}

fn pool_changed(context: &Context, change: Change<'_, StoragePool>) {
    let (Change::Seen(pool) | Change::Gone(pool)) = change;
    context.queues.pools.push(ObjectRef::from_obj(pool));
    let name = pool.name_any();
    let waits = |v: &&Arc<StorageVolume>| v.spec.storage_pool == name && host_of_volume(v).is_none();
    context.queues.volumes.push_all(context.stores.volumes.state().iter().filter(waits));
    context.queues.machines.push_all(context.stores.machines.state().iter().filter(|vm| host_of(vm).is_none()));
}

fn volume_changed(context: &Context, change: Change<'_, StorageVolume>) {
    let (Change::Seen(volume) | Change::Gone(volume)) = change;
    context.queues.volumes.push(ObjectRef::from_obj(volume));
    context.queues.pools.push(ObjectRef::new(&volume.spec.storage_pool));
    if let (Change::Gone(_), Some(_), Some(host)) = (&change, secret::named(volume), host_of_volume(volume)) {
        // Its copy of a secret goes too, however the volume went.
        context.queues.hosts.push(ObjectRef::new(host));
    }
    let (namespace, name) = (volume.namespace(), volume.name_any());
    // A bound machine's claim may follow; a template volume that is gone is made again.
    let names = |vm: &&Arc<VirtualMachine>| vm.namespace() == namespace && uses::volumes(vm).contains_key(&name);
    context.queues.machines.push_all(context.stores.machines.state().iter().filter(names));
}

fn machine_changed(context: &Context, change: Change<'_, VirtualMachine>) {
    let (Change::Seen(vm) | Change::Gone(vm)) = change;
    context.queues.machines.push(ObjectRef::from_obj(vm));
    let namespace = vm.namespace();
    // Bound ones go on whatever becomes of the machine.
    let waits = |s: &&Arc<Snapshot>| {
        s.namespace() == namespace && s.spec.virtual_machine == vm.name_any() && snapshot::host_of(s).is_none()
    };
    context.queues.snapshots.push_all(context.stores.snapshots.state().iter().filter(waits));
    let named = uses::volumes(vm);
    let concerns = |volume: &&Arc<StorageVolume>| {
        let known = volume.status.as_ref().is_some_and(|status| status.used_by.contains(&vm.name_any()));
        volume.namespace() == namespace && (known || named.contains_key(&volume.name_any()))
    };
    context.queues.volumes.push_all(context.stores.volumes.state().iter().filter(concerns));
    if matches!(change, Change::Gone(_)) || vm.metadata.deletion_timestamp.is_some() {
        // Room was given back.
        context.queues.machines.push_all(context.stores.machines.state().iter().filter(|vm| host_of(vm).is_none()));
    }
}

/// Host that a machine is bound to.
pub fn host_of(vm: &VirtualMachine) -> Option<&str> {
    vm.status.as_ref()?.host.as_deref()
}

/// Host that a volume is bound to.
pub fn host_of_volume(volume: &StorageVolume) -> Option<&str> {
    volume.status.as_ref()?.host.as_deref()
}
