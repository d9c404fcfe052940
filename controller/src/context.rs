//! What every shell of the controller shares.

use crate::args::Args;
use crate::room::Room;
use crds::{Host, Snapshot, StoragePool, StorageVolume, VirtualMachine};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};
use shell::events::Events;
use shell::history::History;
use shell::metrics::Metrics;
use shell::passing::Passing;
use shell::queue::Queue;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Field manager of everything that the controller applies.
pub const MANAGER: &str = "virtfleet-controller";

/// Shared by all shells, made once a term.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// All objects, as last seen.
    pub stores: Stores,
    /// Who should be looked at.
    pub queues: Queues,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What was seen of the API server's history.
    pub history: History,
    /// Events for users.
    pub events: Events,
    /// Machines in states that nobody was told of yet.
    pub passing: Passing,
    /// One placement at a time, with what was promised since the stores were last heard.
    pub room: tokio::sync::Mutex<Room>,
    /// After how long without renewal a host is lost.
    pub patience: Duration,
    /// The controller's own namespace.
    pub namespace: String,
    lost: Mutex<BTreeSet<String>>,
}

/// All objects of each kind.
pub struct Stores {
    /// Hosts.
    pub hosts: Store<Host>,
    /// Pools.
    pub pools: Store<StoragePool>,
    /// Volumes.
    pub volumes: Store<StorageVolume>,
    /// Machines.
    pub machines: Store<VirtualMachine>,
    /// Snapshots.
    pub snapshots: Store<Snapshot>,
    /// Namespaces, for their labels.
    pub namespaces: Store<Namespace>,
    /// The hosts' heartbeats.
    pub leases: Store<Lease>,
}

/// A queue for each kind that has passes.
pub struct Queues {
    /// Hosts.
    pub hosts: Queue<Host>,
    /// Pools.
    pub pools: Queue<StoragePool>,
    /// Volumes.
    pub volumes: Queue<StorageVolume>,
    /// Machines.
    pub machines: Queue<VirtualMachine>,
    /// Snapshots.
    pub snapshots: Queue<Snapshot>,
}

impl Context {
    /// Around stores that are still empty.
    pub fn new(
        client: Client,
        args: &Args,
        metrics: Arc<Metrics>,
        history: History,
        stores: Stores,
        queues: Queues,
    ) -> Context {
        Context {
            events: Events::new(client.clone(), MANAGER, MANAGER),
            patience: Duration::from_secs(args.host_lease_seconds.into()),
            namespace: args.namespace.clone(),
            passing: Passing::default(),
            room: tokio::sync::Mutex::default(),
            lost: Mutex::default(),
            client,
            history,
            stores,
            queues,
            metrics,
        }
    }

    /// Whether there is a Host of that name.
    pub fn is_known(&self, host: &str) -> bool {
        self.stores.hosts.get(&ObjectRef::new(host)).is_some()
    }

    /// Whether there is a Host of that name, and nobody deletes it.
    pub fn stands(&self, host: &str) -> bool {
        let host = self.stores.hosts.get(&ObjectRef::new(host));
        host.is_some_and(|host| host.metadata.deletion_timestamp.is_none())
    }

    /// Whether the host's Lease is stale.
    pub fn is_lost(&self, host: &str) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    /// Replaces the set of lost hosts, and gives those that joined or left it.
    pub fn set_lost(&self, now: BTreeSet<String>) -> Vec<String> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = lost.symmetric_difference(&now).cloned().collect();
        *lost = now;
        turned
    }
}
