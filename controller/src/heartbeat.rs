//! Which hosts are lost: those whose Lease has not changed for some time of this process's own clock.

use crate::context::Context;
use crate::snapshot;
use crate::stores::{host_of, host_of_volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks each second, for ever.
pub async fn listen(context: Arc<Context>) {
    let mut seen: BTreeMap<String, (Option<MicroTime>, Instant)> = BTreeMap::new();
    loop {
        let mut lost = BTreeSet::new();
        for lease in context.stores.leases.state() {
            let name = lease.name_any();
            let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
            let entry = seen.entry(name.clone()).or_insert_with(|| (renewed.clone(), Instant::now()));
            if entry.0 != renewed {
                *entry = (renewed, Instant::now());
            }
            if entry.1.elapsed() > context.patience {
                lost.insert(name);
            }
        }
        for host in context.set_lost(lost) {
            let words = if context.is_lost(&host) { "is lost" } else { "is back" };
            tracing::warn!("host {host} {words}");
            context.queues.hosts.push(ObjectRef::new(&host));
            let machines = context.stores.machines.state();
            context.queues.machines.push_all(machines.iter().filter(|vm| host_of(vm) == Some(&host)));
            let volumes = context.stores.volumes.state();
            let snapshots = context.stores.snapshots.state();
            context.queues.snapshots.push_all(snapshots.iter().filter(|s| snapshot::host_of(s) == Some(&host)));
            context.queues.volumes.push_all(volumes.iter().filter(|volume| host_of_volume(volume) == Some(&host)));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
