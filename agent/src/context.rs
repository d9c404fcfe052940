//! What every shell of the agent shares: connections, settings, and what one kind's shell tells another's.

use crate::args::Args;
use crate::guest::Guests;
use crate::jobs::Jobs;
use crate::lanes::Lanes;
use crate::marks::Marks;
use crate::snapshot::attempts::Attempts;
use crate::virtual_machine::memory::Memory;
use crds::host::HostPool;
use crds::{Host, Snapshot, StoragePool, StorageVolume, VirtualMachine};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::runtime::reflector::Store;
use libvirt::Libvirt;
use libvirt_xml::Capabilities;
use shell::events::Events;
use shell::history::History;
use shell::metrics::Metrics;
use shell::passing::Passing;
use shell::queue::Queue;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Field manager of everything that an agent applies.
pub const MANAGER: &str = "virtfleet-agent";

/// Shared by all shells, made once.
pub struct Context {
    /// The API server, as this host's own ServiceAccount.
    pub client: Client,
    /// Name of this Host.
    pub host: String,
    /// UID of namespace kube-system: the cluster in our marks.
    pub cluster: String,
    /// This host's libvirt.
    pub libvirt: Libvirt,
    /// The command line.
    pub args: Args,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Events for users.
    pub events: Events,
    /// All objects that concern this host.
    pub stores: Stores,
    /// Who should be looked at.
    pub queues: Queues,
    /// Which domains carry which mark.
    pub marks: Marks,
    /// Whether all domains were listed since the agent started; probes ask.
    pub listed: Arc<AtomicBool>,
    /// What libvirt says of the host, once it was asked.
    pub facts: Shared<Option<HostFacts>>,
    /// This host's pools by name, for `Host.status`.
    pub pools: Shared<BTreeMap<String, HostPool>>,
    /// The order of work on each domain.
    pub lanes: Lanes,
    /// Machines in states that nobody was told of yet.
    pub passing: Passing,
    /// Imports under way.
    pub jobs: Jobs,
    /// What is tried for snapshots.
    pub attempts: Attempts,
    /// What is known of each domain's starts and stops, by UUID.
    pub memory: Shared<BTreeMap<String, Memory>>,
    /// What was seen of the API server's history.
    pub history: History,
    /// What guests told.
    pub guests: Guests,
    /// Since when libvirt is away; the agent's start counts.
    pub away_since: Shared<Option<Timestamp>>,
    /// Woken when `Host.status` should be looked at again.
    pub host_changed: Notify,
}

/// What libvirt says of the host.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// Versions of libvirt and QEMU.
    pub versions: libvirt::Versions,
    /// Processors and memory.
    pub node: libvirt::Node,
    /// What guests can be.
    pub capabilities: Capabilities,
}

/// All objects that concern this host.
pub struct Stores {
    /// This Host.
    pub host: Store<Host>,
    /// All pools.
    pub pools: Store<StoragePool>,
    /// Volumes bound here.
    pub volumes: Store<StorageVolume>,
    /// Machines bound here.
    pub machines: Store<VirtualMachine>,
    /// Snapshots of machines bound here.
    pub snapshots: Store<Snapshot>,
}

/// A queue for each kind that has passes.
pub struct Queues {
    /// Pools.
    pub pools: Queue<StoragePool>,
    /// Volumes.
    pub volumes: Queue<StorageVolume>,
    /// Machines.
    pub machines: Queue<VirtualMachine>,
    /// Snapshots.
    pub snapshots: Queue<Snapshot>,
}

/// A libvirtd that restarts, and an agent that starts, take less than this: nobody is told of what passes meanwhile.
const PASSING: Duration = Duration::from_secs(2);

impl Context {
    /// Until when what libvirt does not answer may only be passing.
    pub fn settles_until(&self) -> Option<Timestamp> {
        let since = *self.away_since.lock();
        since
            .map(|since| since + SignedDuration::try_from(PASSING).unwrap_or_default())
            .filter(|end| Timestamp::now() < *end)
    }

    /// This Host's object.
    pub fn host_object(&self) -> Option<Arc<Host>> {
        self.stores.host.state().into_iter().next()
    }
}

/// A value behind a lock that is never held across an await.
#[derive(Default)]
pub struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    /// Puts a value behind a lock.
    pub fn new(value: T) -> Self {
        Shared(Mutex::new(value))
    }

    /// Locks it. A panic elsewhere leaves the value usable: every writer replaces whole entries.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
