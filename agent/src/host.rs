//! `Host.status`: what this machine is, has and runs.

use crate::context::{Context, HostFacts, MANAGER};
use crds::conditions::{Builder, Status, Type};
use crds::host::{Allocated, Host, HostState, HostStatus, Resources, Versions};
use crds::{Condition, Quantity, quantity};
use jiff::Timestamp;
use kube::Api;
use libvirt::Link;
use libvirt_xml::Accelerator;
use plan::virtual_machine::uses;
use shell::status::apply;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is no news of a condition, pool or domain waits this long for company.
const COALESCED: Duration = Duration::from_secs(10);
/// Domains that came or went wait this long: each word tells of all of them.
const SOON: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(2);
const RESYNC: Duration = Duration::from_secs(600);

/// Reports for ever.
pub async fn report(context: Arc<Context>) {
    let api = Api::<Host>::all(context.client.clone());
    // Since when there is something to tell.
    let mut since: Option<Instant> = None;
    loop {
        let pause = match context.host_object() {
            None => RESYNC,
            // `miss` wakes when it lasts.
            Some(_) if context.settles_until().is_some() => RESYNC,
            Some(host) => tell(&context, &api, &host, &mut since).await,
        };
        tokio::select! {
            () = context.host_changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Writes what there is to tell, if it has waited long enough; gives how long until the next look.
async fn tell(context: &Context, api: &Api<Host>, host: &Host, since: &mut Option<Instant>) -> Duration {
    let stored = host.status.clone().unwrap_or_default();
    let wanted = status(context, host, &stored);
    if stored == wanted {
        *since = None;
        return RESYNC;
    }
    let waited = since.get_or_insert_with(Instant::now).elapsed();
    let patience = patience(&stored, &wanted);
    if waited < patience {
        return patience - waited;
    }
    match apply(api, MANAGER, host, (&stored, &wanted), &context.metrics).await {
        Ok(_) => {
            *since = None;
            context.events.turned(host, &stored.conditions, &wanted.conditions).await;
            RESYNC
        }
        Err(error) => {
            tracing::debug!("writing Host {}: {error}", context.host);
            RETRY
        }
    }
}

/// How long it may wait.
fn patience(stored: &HostStatus, wanted: &HostStatus) -> Duration {
    let conditions = |status: &HostStatus| -> Vec<(String, String, String)> {
        status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect()
    };
    let pools = |status: &HostStatus| -> Vec<_> {
        let pools = status.storage_pools.iter();
        pools.map(|p| (p.uid.clone(), p.observed_generation, p.state, p.reason.clone())).collect()
    };
    // A host's first list of domains is what placement waits for.
    let listed = stored.unmanaged_domains.is_some() || wanted.unmanaged_domains.is_none();
    if conditions(stored) != conditions(wanted) || pools(stored) != pools(wanted) || !listed {
        Duration::ZERO
    } else if stored.domains != wanted.domains {
        SOON
    } else {
        COALESCED
    }
}

fn status(context: &Context, host: &Host, stored: &HostStatus) -> HostStatus {
    let facts = context.facts.lock().clone();
    let link = context.libvirt.link().borrow().clone();
    let conditions = conditions(context, host, stored, facts.as_ref(), &link);
    let base = HostStatus {
        observed_generation: host.metadata.generation,
        state: Some(if link == Link::Up && facts.is_some() { HostState::Ready } else { HostState::NotReady }),
        conditions,
        storage_pools: context.pools.lock().values().cloned().collect(),
        ..stored.clone()
    };
    let (Some(facts), Some((domains, unmanaged))) = (facts, context.marks.report(&context.cluster)) else {
        return base;
    };
    // Whole mebibytes: a person reads this.
    let capacity = (u64::from(facts.node.cpus) * 1000, (facts.node.memory_kib / 1024) << 20);
    HostStatus {
        versions: Some(Versions {
            agent: Some(env!("CARGO_PKG_VERSION").into()),
            libvirt: Some(facts.versions.libvirt.clone()),
            qemu: Some(facts.versions.hypervisor.clone()),
        }),
        arch: Some(facts.capabilities.arch.clone()),
        cpu_model: facts.capabilities.cpu_model.clone(),
        acceleration: Some(if accelerates(context, &facts) { "KVM" } else { "Emulation" }.into()),
        capabilities: [("externalSnapshot".to_owned(), facts.capabilities.external_snapshot)].into(),
        capacity: Some(resources(capacity)),
        allocatable: Some(resources(allocatable(host, capacity))),
        allocated: Some(allocated(context)),
        domains,
        unmanaged_domains: Some(unmanaged),
        ..base
    }
}

fn conditions(
    context: &Context,
    host: &Host,
    stored: &HostStatus,
    facts: Option<&HostFacts>,
    link: &Link,
) -> Vec<Condition> {
    let builder = Builder::new(&stored.conditions, host.metadata.generation.unwrap_or_default(), Timestamp::now());
    let builder = match (link, facts) {
        (Link::Up, Some(_)) => builder.set(Type::Ready, Status::True, "Ready", "").set(
            Type::LibvirtConnected,
            Status::True,
            "Connected",
            "",
        ),
        (Link::Up, None) => builder.set(Type::Ready, Status::False, "Starting", "asking libvirt what the host has"),
        (Link::Down(why), _) => builder.set(Type::Ready, Status::False, "LibvirtUnreachable", why).set(
            Type::LibvirtConnected,
            Status::False,
            "LibvirtUnreachable",
            why,
        ),
    };
    let Some(facts) = facts else { return builder.build() };
    let kvm = facts.capabilities.accelerators.contains(&Accelerator::Kvm);
    let (reason, words) = match (kvm, context.args.force_emulation) {
        (_, true) => ("EmulationForced", "the agent was told to emulate every guest (--force-emulation)"),
        (true, false) => ("KVM", ""),
        (false, false) => ("NoKVM", "libvirt offers no KVM: is /dev/kvm there?"),
    };
    builder.set(Type::AccelerationAvailable, Status::from(accelerates(context, facts)), reason, words).build()
}

fn accelerates(context: &Context, facts: &HostFacts) -> bool {
    facts.capabilities.accelerators.contains(&Accelerator::Kvm) && !context.args.force_emulation
}

fn resources((thousandths, bytes): (u64, u64)) -> Resources {
    let cpu = if thousandths % 1000 == 0 { (thousandths / 1000).to_string() } else { format!("{thousandths}m") };
    Resources { cpu: Quantity(cpu), memory: quantity::from_bytes(bytes) }
}

/// Capacity less the reserved, times overcommit.
fn allocatable(host: &Host, capacity: (u64, u64)) -> (u64, u64) {
    let factor = |text: &str| text.parse::<f64>().unwrap_or(1.0).max(1.0);
    let reserved = &host.spec.reserved;
    let cpu = capacity.0.saturating_sub(quantity::thousandths(&reserved.cpu).unwrap_or_default());
    let memory = capacity.1.saturating_sub(quantity::units(&reserved.memory).unwrap_or_default());
    let times = |value: u64, text: &str| (value as f64 * factor(text)) as u64;
    (times(cpu, &host.spec.overcommit.cpu), (times(memory, &host.spec.overcommit.memory) >> 20) << 20)
}

fn allocated(context: &Context) -> Allocated {
    let machines = context.stores.machines.state();
    let sum = machines.iter().map(|vm| uses::demand(vm)).fold((0, 0), |sum, vm| (sum.0 + vm.0, sum.1 + vm.1));
    let Resources { cpu, memory } = resources(sum);
    Allocated { cpu, memory, vms: i64::try_from(machines.len()).unwrap_or(i64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::host::{MarkedDomain, UnmanagedDomains};

    #[test]
    fn trouble_is_told_at_once_domains_soon_and_sizes_when_they_like() {
        let quiet = HostStatus { unmanaged_domains: Some(UnmanagedDomains::default()), ..HostStatus::default() };
        assert_eq!(patience(&HostStatus::default(), &quiet), Duration::ZERO, "the first list");
        let ready = Builder::new(&[], 1, Timestamp::UNIX_EPOCH).set(Type::Ready, Status::True, "Ready", "").build();
        assert_eq!(patience(&quiet, &HostStatus { conditions: ready, ..quiet.clone() }), Duration::ZERO);
        let domains =
            vec![MarkedDomain { namespace: "shop".into(), name: "web".into(), uid: "u".into(), uuid: "u".into() }];
        assert_eq!(patience(&quiet, &HostStatus { domains, ..quiet.clone() }), SOON);
        assert_eq!(patience(&quiet, &HostStatus { arch: Some("x86_64".into()), ..quiet.clone() }), COALESCED);
    }
}
