//! Which host a machine goes to: the emptiest of those that fit. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use std::collections::{BTreeMap, BTreeSet};

/// What a machine needs of its host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Need {
    /// Processors in thousandths.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// The one host that the manifest allows.
    pub host: Option<String>,
    /// Labels that the manifest asks for.
    pub selector: Option<LabelSelector>,
    /// Pools in which its volumes are or will be.
    pub pools: BTreeSet<String>,
    /// Volumes that lie on a host already, by name.
    pub volumes: BTreeMap<String, String>,
    /// Hosts that report a domain with its mark.
    pub known_on: BTreeSet<String>,
}

/// A host as last reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its libvirt and its agent answer.
    pub ready: bool,
    /// Whether the administrator lets new machines come.
    pub schedulable: bool,
    /// What may be promised: processors in thousandths, bytes.
    pub allocatable: (u64, u64),
    /// What is promised.
    pub promised: (u64, u64),
    /// Pools that are ready there.
    pub pools: BTreeSet<String>,
}

/// Why a machine is placed nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nowhere {
    /// CamelCase word.
    pub reason: &'static str,
    /// Host by host.
    pub message: String,
}

/// Hosts named in a message at most.
const NAMED: usize = 8;

/// Chooses a host.
///
/// # Errors
/// When none fits, or when two have the machine already.
pub fn place(need: &Need, hosts: &[Candidate]) -> Result<String, Nowhere> {
    let known: Vec<&String> = need.known_on.iter().collect();
    match known.as_slice() {
        // Where it is it stays, whatever the host is like by now.
        [host] => return Ok((*host).clone()),
        [_, _, ..] => {
            let message = format!(
                "hosts {} both have a domain of this machine; undefine the wrong one with virsh, nothing is touched until then",
                known.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(" and ")
            );
            return Err(Nowhere { reason: "Conflict", message });
        }
        [] => {}
    }
    // A message whose order changed from look to look would be written each time.
    let mut refusals: Vec<_> = hosts.iter().map(|host| (host, refusal(need, host))).collect();
    refusals.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let best = refusals.iter().filter(|(_, why)| why.is_none()).map(|(host, _)| host);
    if let Some(host) = best.min_by(|a, b| fullness(need, a).total_cmp(&fullness(need, b)).then(a.name.cmp(&b.name))) {
        return Ok(host.name.clone());
    }
    let mut message = format!("0 of {} hosts fit", hosts.len());
    for (at, (host, why)) in refusals.iter().take(NAMED).enumerate() {
        let separator = if at == 0 { ": " } else { "; " };
        message += &format!("{separator}{}: {}", host.name, why.as_deref().unwrap_or_default());
    }
    if hosts.len() > NAMED {
        message += &format!("; and {} more", hosts.len() - NAMED);
    }
    Err(Nowhere { reason: if hosts.is_empty() { "NoHosts" } else { "NoHostFits" }, message })
}

/// Whether the labels match. A selector that cannot be read matches nothing.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

fn refusal(need: &Need, host: &Candidate) -> Option<String> {
    let free = |of: u64, promised: u64| of.saturating_sub(promised);
    let (cpu, memory) = (free(host.allocatable.0, host.promised.0), free(host.allocatable.1, host.promised.1));
    if need.host.as_ref().is_some_and(|name| *name != host.name) {
        return Some("spec.placement.host names another".into());
    }
    if need.selector.as_ref().is_some_and(|selector| !matches(selector, &host.labels)) {
        return Some("its labels do not match spec.placement.hostSelector".into());
    }
    if let Some((volume, at)) = need.volumes.iter().find(|(_, at)| **at != host.name) {
        return Some(format!("volume {volume} is on {at}"));
    }
    if !host.ready {
        return Some("not ready".into());
    }
    if !host.schedulable {
        return Some("not schedulable".into());
    }
    if let Some(pool) = need.pools.iter().find(|pool| !host.pools.contains(*pool)) {
        return Some(format!("pool {pool} is not ready there"));
    }
    if need.cpu > cpu {
        return Some(format!("{} of {} processors are free", cpu as f64 / 1000.0, need.cpu as f64 / 1000.0));
    }
    if need.memory > memory {
        let mib = |bytes: u64| bytes >> 20;
        return Some(format!("{} MiB of memory are free, {} MiB are needed", mib(memory), mib(need.memory)));
    }
    None
}

/// How full the host would be: the fuller of its two measures.
fn fullness(need: &Need, host: &Candidate) -> f64 {
    let part = |used: u64, of: u64| used as f64 / (of.max(1)) as f64;
    part(host.promised.0 + need.cpu, host.allocatable.0).max(part(host.promised.1 + need.memory, host.allocatable.1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GIB: u64 = 1 << 30;

    fn host(name: &str) -> Candidate {
        Candidate {
            name: name.into(),
            labels: [("disk".to_owned(), name.to_owned())].into(),
            ready: true,
            schedulable: true,
            allocatable: (8000, 8 * GIB),
            promised: (0, 0),
            pools: ["images".to_owned()].into(),
        }
    }

    fn need() -> Need {
        Need { cpu: 1000, memory: GIB, pools: ["images".to_owned()].into(), ..Need::default() }
    }

    #[test]
    fn the_emptiest_host_is_chosen_and_then_the_first_by_name() {
        let busy = Candidate { promised: (1000, GIB), ..host("a") };
        assert_eq!(place(&need(), &[busy, host("c"), host("b")]).unwrap(), "b");
    }

    #[test]
    fn a_host_that_reports_the_domain_gets_it_though_it_is_full_and_not_ready() {
        let need = Need { known_on: ["a".to_owned()].into(), ..need() };
        let full = Candidate { ready: false, promised: (8000, 8 * GIB), ..host("a") };
        assert_eq!(place(&need, &[full, host("b")]).unwrap(), "a");
    }

    #[test]
    fn two_hosts_that_report_the_domain_are_a_conflict() {
        let need = Need { known_on: ["a".to_owned(), "b".to_owned()].into(), ..need() };
        assert_eq!(place(&need, &[host("a"), host("b"), host("c")]).unwrap_err().reason, "Conflict");
    }

    #[test]
    fn every_refusal_names_host_and_reason() {
        let selector = |value: &str| LabelSelector {
            match_labels: Some([("disk".into(), value.into())].into()),
            ..LabelSelector::default()
        };
        for (need, host, words) in [
            (Need { host: Some("b".into()), ..need() }, host("a"), "spec.placement.host names another"),
            (Need { selector: Some(selector("x")), ..need() }, host("a"), "hostSelector"),
            (Need { volumes: [("root".into(), "b".into())].into(), ..need() }, host("a"), "volume root is on b"),
            (need(), Candidate { ready: false, ..host("a") }, "not ready"),
            (need(), Candidate { schedulable: false, ..host("a") }, "not schedulable"),
            (need(), Candidate { pools: BTreeSet::new(), ..host("a") }, "pool images is not ready there"),
            (Need { cpu: 9000, ..need() }, host("a"), "8 of 9 processors are free"),
            (
                need(),
                Candidate { promised: (0, 8 * GIB), ..host("a") },
                "0 MiB of memory are free, 1024 MiB are needed",
            ),
        ] {
            let nowhere = place(&need, &[host]).unwrap_err();
            assert_eq!(nowhere.reason, "NoHostFits");
            assert!(
                nowhere.message.starts_with("0 of 1 hosts fit: a: ") && nowhere.message.contains(words),
                "{nowhere:?}"
            );
        }
        assert_eq!(place(&need(), &[]).unwrap_err().reason, "NoHosts");
    }

    #[test]
    fn the_message_does_not_depend_on_the_order_of_the_hosts() {
        let need = Need { cpu: 9000, ..need() };
        assert_eq!(place(&need, &[host("a"), host("b")]), place(&need, &[host("b"), host("a")]));
    }

    #[test]
    fn a_selector_that_matches_is_obeyed() {
        let selector =
            LabelSelector { match_labels: Some([("disk".into(), "b".into())].into()), ..LabelSelector::default() };
        let need = Need { selector: Some(selector), ..need() };
        assert_eq!(place(&need, &[host("a"), host("b")]).unwrap(), "b");
    }
}
