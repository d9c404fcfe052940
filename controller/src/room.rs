//! What each host has room for, from the specs of what is bound to it.

use crate::context::Context;
use crate::stores::host_of;
use crds::host::{Host, HostPoolState};
use crds::{conditions, quantity};
use kube::ResourceExt;
use plan::placement::Candidate;
use plan::virtual_machine::uses;
use std::collections::BTreeMap;

/// Machines that were bound since the store last told of them: uid to host and demand.
#[derive(Default)]
pub struct Room(BTreeMap<String, (String, (u64, u64))>);

impl Room {
    /// Remembers a binding until the store shows it.
    pub fn promise(&mut self, uid: String, host: String, demand: (u64, u64)) {
        self.0.insert(uid, (host, demand));
    }

    /// Forgets a binding that was not written.
    pub fn take_back(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// Host to which the machine was bound, when the store does not show it yet.
    pub fn promised_to(&self, uid: &str) -> Option<&str> {
        self.0.get(uid).map(|(host, _)| host.as_str())
    }

    /// All hosts with what is free there.
    pub fn candidates(&mut self, context: &Context) -> Vec<Candidate> {
        let mut promised: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut add = |host: &str, demand: (u64, u64)| {
            let sum = promised.entry(host.to_owned()).or_default();
            *sum = (sum.0 + demand.0, sum.1 + demand.1);
        };
        let machines = context.stores.machines.state();
        for vm in &machines {
            if let Some(host) = host_of(vm) {
                self.0.remove(vm.metadata.uid.as_deref().unwrap_or_default());
                add(host, uses::demand(vm));
            }
        }
        // A machine that is gone needs nothing.
        self.0.retain(|uid, _| machines.iter().any(|vm| vm.metadata.uid.as_ref() == Some(uid)));
        self.0.values().for_each(|(host, demand)| add(host, *demand));
        let hosts = context.stores.hosts.state();
        hosts.iter().map(|host| candidate(context, host, promised.get(&host.name_any()).copied())).collect()
    }
}

fn candidate(context: &Context, host: &Host, promised: Option<(u64, u64)>) -> Candidate {
    let name = host.name_any();
    let status = host.status.clone().unwrap_or_default();
    let allocatable = status.allocatable.as_ref().map(|all| {
        (quantity::thousandths(&all.cpu).unwrap_or_default(), quantity::units(&all.memory).unwrap_or_default())
    });
    let ready = |state| state == HostPoolState::Ready;
    Candidate {
        ready: conditions::is_true(&status.conditions, conditions::Type::Ready)
            && !context.is_lost(&name)
            && host.metadata.deletion_timestamp.is_none(),
        schedulable: host.spec.schedulable,
        labels: host.metadata.labels.clone().unwrap_or_default(),
        allocatable: allocatable.unwrap_or_default(),
        promised: promised.unwrap_or_default(),
        pools: status.storage_pools.iter().filter(|pool| ready(pool.state)).map(|pool| pool.name.clone()).collect(),
        name,
    }
}
