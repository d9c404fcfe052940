//! libvirt tells of no snapshot: whoever makes or removes one beside us is found by counting.

use super::push_of_machine;
use crate::context::Context;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(20);

/// Counts for ever, and asks for a look at the machines that have another number of snapshots than they tell.
pub async fn count(context: Arc<Context>) {
    loop {
        tokio::time::sleep(EVERY).await;
        // While the connection is broken nothing is counted; its return asks for a look at everything.
        let Ok(now) = context.libvirt.snapshot_counts().await else { continue };
        for vm in context.stores.machines.state() {
            let status = vm.status.clone().unwrap_or_default();
            let Some(domain) = status.domain else { continue };
            let told = status.snapshots.map_or(0, |snapshots| snapshots.count);
            if told != i64::from(now.get(&domain.uuid).copied().unwrap_or_default()) {
                context.queues.machines.push(ObjectRef::from_obj(&*vm));
                push_of_machine(&context, &vm.namespace().unwrap_or_default(), &vm.name_any(), |_| true);
            }
        }
    }
}
