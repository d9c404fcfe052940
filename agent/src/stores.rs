//! The watches, and which change asks for a look at what else.

use crate::args::Args;
use crate::context::{Context, Queues, Shared, Stores};
use crate::guest::Guests;
use crate::jobs::Jobs;
use crate::lanes::Lanes;
use crate::marks::Marks;
use crate::snapshot::attempts::Attempts;
use crate::{heartbeat, host, libvirt_events, snapshot, storage_pool, storage_volume, virtual_machine};
use crds::{Host, Snapshot, StoragePool, StorageVolume, VirtualMachine};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, store};
use kube::runtime::watcher::Config;
use kube::{Api, Client, ResourceExt};
use libvirt::Libvirt;
use plan::snapshot::concerned;
use plan::virtual_machine::uses;
use shell::events::Events;
use shell::history::History;
use shell::metrics::Metrics;
use shell::passing::Passing;
use shell::queue::{Exit, queue, work};
use shell::watch::{Change, watch};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

/// A context with the ends of its stores and queues that only [`run`] holds.
pub struct Seed {
    context: Arc<Context>,
    host: Writer<Host>,
    pools: (Writer<StoragePool>, Exit<StoragePool>),
    volumes: (Writer<StorageVolume>, Exit<StorageVolume>),
    machines: (Writer<VirtualMachine>, Exit<VirtualMachine>),
    snapshots: (Writer<Snapshot>, Exit<Snapshot>),
}

impl Seed {
    /// Makes the context, its stores still empty.
    pub fn new(
        client: Client,
        cluster: String,
        libvirt: Libvirt,
        args: Args,
        metrics: Arc<Metrics>,
        listed: Arc<AtomicBool>,
    ) -> Seed {
        let (host, host_writer) = store();
        let ((pools, pools_writer), (pool_queue, pool_exit)) = (store(), queue());
        let ((volumes, volumes_writer), (volume_queue, volume_exit)) = (store(), queue());
        let ((machines, machines_writer), (machine_queue, machine_exit)) = (store(), queue());
        let ((snapshots, snapshots_writer), (snapshot_queue, snapshot_exit)) = (store(), queue());
        let context = Context {
            events: Events::new(client.clone(), crate::context::MANAGER, &args.host),
            host: args.host.clone(),
            stores: Stores { host, pools, volumes, machines, snapshots },
            queues: Queues {
                pools: pool_queue,
                volumes: volume_queue,
                machines: machine_queue,
                snapshots: snapshot_queue,
            },
            marks: Marks::default(),
            listed,
            facts: Shared::default(),
            pools: Shared::default(),
            lanes: Lanes::default(),
            passing: Passing::default(),
            jobs: Jobs::default(),
            attempts: Attempts::default(),
            memory: Shared::default(),
            history: History::default(),
            guests: Guests::default(),
            away_since: Shared::new(Some(jiff::Timestamp::now())),
            host_changed: Notify::new(),
            client,
            cluster,
            libvirt,
            args,
            metrics,
        };
        Seed {
            context: Arc::new(context),
            host: host_writer,
            pools: (pools_writer, pool_exit),
            volumes: (volumes_writer, volume_exit),
            machines: (machines_writer, machine_exit),
            snapshots: (snapshots_writer, snapshot_exit),
        }
    }
}

/// Watches and works for ever.
pub async fn run(seed: Seed, events: UnboundedReceiver<libvirt::Event>) {
    let Seed { context, host, pools, volumes, machines, snapshots } = seed;
    let client = || context.client.clone();
    let history = || context.history.clone();
    let bound = || Config::default().fields(&format!("status.host={}", context.host));
    let own = Config::default().fields(&format!("metadata.name={}", context.host));
    let (c1, c2, c3) = (context.clone(), context.clone(), context.clone());
    let (c4, c5) = (context.clone(), context.clone());
    let watches = async {
        tokio::join!(
            watch(Api::all(client()), own, history(), host, move |_| host_changed(&c1)),
            watch(Api::all(client()), Config::default(), history(), pools.0, move |change| pool_changed(&c2, &change)),
            watch(Api::all(client()), bound(), history(), volumes.0, move |change| volume_changed(&c3, &change)),
            watch(Api::all(client()), bound(), history(), machines.0, move |change| machine_changed(&c4, &change)),
            watch(Api::all(client()), bound(), history(), snapshots.0, move |change| snapshot_changed(&c5, &change)),
        )
    };
    let stores = &context.stores;
    let work = async {
        let _ = tokio::join!(
            stores.host.wait_until_ready(),
            stores.pools.wait_until_ready(),
            stores.volumes.wait_until_ready(),
            stores.machines.wait_until_ready(),
            stores.snapshots.wait_until_ready(),
        );
        recall_pools(&context);
        tracing::info!("working as host {}", context.host);
        let metrics = || context.metrics.clone();
        tokio::join!(
            work(pools.1, stores.pools.clone(), context.clone(), metrics(), storage_pool::pass),
            work(volumes.1, stores.volumes.clone(), context.clone(), metrics(), storage_volume::pass),
            work(machines.1, stores.machines.clone(), context.clone(), metrics(), virtual_machine::pass),
            work(snapshots.1, stores.snapshots.clone(), context.clone(), metrics(), snapshot::pass),
            snapshot::poll::count(context.clone()),
            libvirt_events::listen(context.clone(), events),
            libvirt_events::miss(context.clone()),
            host::report(context.clone()),
            heartbeat::beat(context.clone()),
        )
    };
    tokio::select! {
        _ = watches => {}
        _ = work => {}
    }
}

/// What was reported of pools stands until each was looked at again.
fn recall_pools(context: &Context) {
    let host = context.host_object();
    let stored = host.iter().flat_map(|host| &host.status).flat_map(|status| status.storage_pools.clone());
    let mut pools = context.pools.lock();
    stored.for_each(|pool| {
        pools.entry(pool.name.clone()).or_insert(pool);
    });
}

fn host_changed(context: &Context) {
    context.queues.pools.push_all(&context.stores.pools.state());
    context.host_changed.notify_one();
}

fn pool_changed(context: &Context, change: &Change<'_, StoragePool>) {
    let (Change::Seen(pool) | Change::Gone(pool)) = change;
    if matches!(change, Change::Gone(_)) {
        context.pools.lock().remove(&pool.name_any());
        context.host_changed.notify_one();
    }
    context.queues.pools.push(ObjectRef::from_obj(*pool));
}

/// Asks for a look at the volumes of a pool, since the pool turned.
pub fn pool_turned(context: &Context, name: &str) {
    let volumes = context.stores.volumes.state();
    context.queues.volumes.push_all(volumes.iter().filter(|volume| volume.spec.storage_pool == name));
    context.host_changed.notify_one();
}

fn volume_changed(context: &Context, change: &Change<'_, StorageVolume>) {
    let (Change::Seen(volume) | Change::Gone(volume)) = change;
    context.queues.volumes.push(ObjectRef::from_obj(*volume));
    let (namespace, name) = (volume.namespace(), volume.name_any());
    let names = |vm: &&Arc<VirtualMachine>| vm.namespace() == namespace && uses::volumes(vm).contains_key(&name);
    context.queues.machines.push_all(context.stores.machines.state().iter().filter(names));
}

fn machine_changed(context: &Context, change: &Change<'_, VirtualMachine>) {
    let (Change::Seen(vm) | Change::Gone(vm)) = change;
    context.queues.machines.push(ObjectRef::from_obj(*vm));
    let gone = matches!(change, Change::Gone(_));
    snapshot::push_of_machine(context, &vm.namespace().unwrap_or_default(), &vm.name_any(), |snapshot| {
        gone || concerned::waits(snapshot) || concerned::differs(snapshot, vm)
    });
    if gone {
        // A volume may wait for the last domain that named its file.
        let namespace = vm.namespace();
        let waits = |v: &&Arc<StorageVolume>| v.namespace() == namespace && v.metadata.deletion_timestamp.is_some();
        context.queues.volumes.push_all(context.stores.volumes.state().iter().filter(waits));
    }
    context.host_changed.notify_one();
}

fn snapshot_changed(context: &Context, change: &Change<'_, Snapshot>) {
    match change {
        Change::Seen(snapshot) => context.queues.snapshots.push(ObjectRef::from_obj(*snapshot)),
        Change::Gone(snapshot) => context.attempts.forget(&snapshot.uid().unwrap_or_default()),
    }
}
