//! A StoragePool over all of its hosts: the sum that the controller writes. Pure.

use crate::placement::matches;
use crds::conditions::{Builder, Status, Type, is_true};
use crds::host::{Host, HostPool, HostPoolState};
use crds::storage_pool::{PoolHosts, StoragePool, StoragePoolStatus};
use crds::{Quantity, Teardown, quantity};
use jiff::Timestamp;

/// Whether a host of these labels should have the pool.
pub fn selects(pool: &StoragePool, host: &Host) -> bool {
    matches(&pool.spec.host_selector, &host.metadata.labels.clone().unwrap_or_default())
}

/// The host's entry for this very pool.
pub fn entry<'a>(pool: &StoragePool, host: &'a Host) -> Option<&'a HostPool> {
    let entries = host.status.iter().flat_map(|status| &status.storage_pools);
    entries.into_iter().find(|entry| Some(&entry.uid) == pool.metadata.uid.as_ref())
}

/// Whether the host's agent and its libvirt answer.
fn answers(host: &Host) -> bool {
    host.status.as_ref().is_some_and(|status| is_true(&status.conditions, Type::Ready))
}

/// Sums up; `volumes`: how many StorageVolumes name it.
pub fn status(
    pool: &StoragePool,
    hosts: &[&Host],
    volumes: usize,
    teardown: Option<Teardown>,
    now: Timestamp,
) -> StoragePoolStatus {
    let generation = pool.metadata.generation.unwrap_or_default();
    let mut wanted: Vec<&&Host> = hosts.iter().filter(|host| selects(pool, host)).collect();
    wanted.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let entries: Vec<(&str, &HostPool)> =
        wanted.iter().filter_map(|host| Some((host.metadata.name.as_deref()?, entry(pool, host)?))).collect();
    // What a host said before it fell silent is no news of its pool.
    let silent: Vec<String> =
        wanted.iter().filter(|host| !answers(host)).filter_map(|host| host.metadata.name.clone()).collect();
    let answering = || entries.iter().filter(|(host, _)| !silent.iter().any(|name| name == host));
    let ready: Vec<_> = answering()
        .filter(|(_, entry)| entry.state == HostPoolState::Ready && entry.observed_generation == generation)
        .map(|(_, entry)| *entry)
        .collect();
    let mut troubles: Vec<String> = answering()
        .filter(|(_, entry)| entry.state == HostPoolState::Failed)
        .map(|(host, entry)| format!("{host}: {}", entry.message.clone().or(entry.reason.clone()).unwrap_or_default()))
        .collect();
    troubles.extend(silent.iter().map(|host| format!("{host}: the host is not ready")));
    let reason = answering().find_map(|(_, entry)| entry.reason.clone()).unwrap_or_else(|| "HostsNotReady".into());
    let none = StoragePoolStatus::default();
    let previous = &pool.status.as_ref().unwrap_or(&none).conditions;
    let missing = wanted.len() - ready.len();
    let words = match (wanted.len(), troubles.is_empty()) {
        (0, _) => "no host's labels match spec.hostSelector".to_owned(),
        (_, true) => format!("{missing} of {} hosts are not ready yet", wanted.len()),
        (_, false) => troubles.join("; "),
    };
    let terminating = teardown.is_some();
    let blocked = terminating && volumes > 0;
    let list = Builder::new(previous, generation, now);
    let list =
        match (terminating, wanted.is_empty(), missing) {
            (true, _, _) => list.set(Type::Ready, Status::False, "Terminating", "the hosts are undefining it").set(
                Type::Reconciling,
                Status::True,
                "Terminating",
                "",
            ),
            (false, true, _) => list.set(Type::Ready, Status::False, "NoHosts", words),
            (false, false, 0) => list.set(Type::Ready, Status::True, "Ready", ""),
            (false, false, _) if troubles.is_empty() => list
                .set(Type::Ready, Status::False, &reason, words.clone())
                .set(Type::Reconciling, Status::True, &reason, words),
            (false, false, _) => list
                .set(Type::Ready, Status::False, &reason, words.clone())
                .set_while(!ready.is_empty(), Type::Degraded, &reason, words.clone())
                .set(Type::Reconciling, Status::True, &reason, words),
        };
    let near_full = ready.iter().any(|entry| {
        let size = |quantity: &Option<Quantity>| quantity.as_ref().and_then(quantity::units);
        matches!((size(&entry.available), size(&entry.capacity)), (Some(free), Some(all)) if free < all / 10)
    });
    let words = format!("{volumes} StorageVolumes are in it; delete them first");
    let conditions = list
        .set_while(near_full, Type::NearFull, "LittleSpace", "less than a tenth is free on some host")
        .set_while(blocked, Type::DeletionBlocked, "VolumesExist", words)
        .build();
    let counted = if pool.spec.shared { ready.get(..1).unwrap_or_default() } else { &ready[..] };
    let sum = |field: fn(&HostPool) -> &Option<Quantity>| {
        let sizes: Vec<u64> = counted.iter().filter_map(|entry| quantity::units(field(entry).as_ref()?)).collect();
        (!sizes.is_empty()).then(|| quantity::from_bytes(sizes.iter().sum()))
    };
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    StoragePoolStatus {
        observed_generation: Some(generation),
        type_: Some("dir".into()),
        hosts: Some(PoolHosts { desired: count(wanted.len()), ready: count(ready.len()) }),
        capacity: sum(|entry| &entry.capacity),
        allocation: sum(|entry| &entry.allocation),
        available: sum(|entry| &entry.available),
        volumes: Some(count(volumes)),
        teardown,
        conditions,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crds::conditions::find;
    use serde_json::{Value, json};

    fn pool(spec: Value) -> StoragePool {
        let mut whole = json!({"dir": {"path": "/p"}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "StoragePool",
            "metadata": {"name": "p", "uid": "u", "generation": 1}, "spec": whole}))
        .unwrap()
    }

    fn host(name: &str, entry: Value) -> Host {
        serde_json::from_value(json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "Host",
            "metadata": {"name": name, "labels": {"host": name}}, "spec": {}, "status": {"storagePools": entry,
                "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap()
    }

    fn entry(uid: &str, state: &str, free: &str) -> Value {
        json!([{"name": "p", "uid": uid, "observedGeneration": 1, "state": state, "message": "full of sand",
            "capacity": "10Gi", "allocation": "1Gi", "available": free}])
    }

    fn look(pool: &StoragePool, hosts: &[Host]) -> StoragePoolStatus {
        status(pool, &hosts.iter().collect::<Vec<_>>(), 0, None, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn sizes_are_summed_over_the_hosts_and_counted_once_when_shared() {
        let hosts = [host("a", entry("u", "Ready", "9Gi")), host("b", entry("u", "Ready", "9Gi"))];
        let own = look(&pool(json!({})), &hosts);
        assert_eq!((own.capacity.unwrap().0.as_str(), own.hosts), ("20Gi", Some(PoolHosts { desired: 2, ready: 2 })));
        assert!(is_true(&own.conditions, Type::Ready));
        assert_eq!(look(&pool(json!({"shared": true})), &hosts).capacity.unwrap().0, "10Gi");
    }

    #[test]
    fn one_host_that_fails_degrades_the_pool_and_is_named() {
        let hosts = [host("a", entry("u", "Ready", "9Gi")), host("b", entry("u", "Failed", "9Gi"))];
        let seen = look(&pool(json!({})), &hosts);
        assert!(is_true(&seen.conditions, Type::Degraded));
        assert_eq!(find(&seen.conditions, Type::Ready).unwrap().message, "b: full of sand");
    }

    #[test]
    fn what_a_lost_host_said_last_does_not_count() {
        let mut lost = host("b", entry("u", "Ready", "9Gi"));
        lost.status.as_mut().unwrap().conditions[0].status = "Unknown".into();
        let seen = look(&pool(json!({})), &[host("a", entry("u", "Ready", "9Gi")), lost]);
        assert_eq!(seen.hosts, Some(PoolHosts { desired: 2, ready: 1 }));
        let ready = find(&seen.conditions, Type::Ready).unwrap();
        assert_eq!((ready.status.as_str(), ready.message.as_str()), ("False", "b: the host is not ready"));
    }

    #[test]
    fn an_entry_of_an_earlier_pool_of_this_name_counts_for_nothing() {
        let seen = look(&pool(json!({})), &[host("a", entry("old", "Ready", "9Gi"))]);
        assert_eq!(seen.hosts, Some(PoolHosts { desired: 1, ready: 0 }));
        assert!(is_true(&seen.conditions, Type::Reconciling));
    }

    #[test]
    fn little_space_and_no_hosts_are_told() {
        let full = look(&pool(json!({})), &[host("a", entry("u", "Ready", "512Mi"))]);
        assert!(is_true(&full.conditions, Type::NearFull));
        let none = look(&pool(json!({"hostSelector": {"matchLabels": {"host": "z"}}})), &[host("a", json!([]))]);
        assert_eq!(find(&none.conditions, Type::Ready).unwrap().reason, "NoHosts");
    }
}
