//! Which hosts are lost: those whose Lease has not changed for some time of this process's own clock. A Lease that is gone does not
//! change either: an uninstallation takes it away, and the host's agent may not be there to make the next one.

use crate::context::{Context, Stores};
use crate::snapshot;
use crate::stores::{host_of, host_of_volume};
use crds::{Host, conditions};
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
        for (name, renewed) in renewals(&context.stores) {
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

/// When each host that ever had an agent was last heard of. One that is not Ready, nor not Ready, never had one.
fn renewals(stores: &Stores) -> BTreeMap<String, Option<MicroTime>> {
    let hosts = stores.hosts.state();
    let told = |host: &Host| {
        let conditions = host.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
        conditions::find(conditions, conditions::Type::Ready).is_some()
    };
    let mut renewals: BTreeMap<_, _> =
        hosts.iter().filter(|host| told(host)).map(|host| (host.name_any(), None)).collect();
    let leases = stores.leases.state();
    renewals.extend(leases.iter().map(|lease| {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        (lease.name_any(), renewed)
    }));
    renewals
}
