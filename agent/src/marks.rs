//! Which domains are on this host and whose they are: filled when libvirt connects, kept by its events.

use crate::context::Shared;
use crds::host::{MarkedDomain, UnmanagedDomain, UnmanagedDomains};
use libvirt_xml::{Mark, Owner};
use std::collections::BTreeMap;

/// A domain of this host.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name in libvirt.
    pub name: String,
    /// libvirt's word for its state.
    pub state: String,
    /// Our mark, of whatever cluster.
    pub mark: Option<Mark>,
}

/// All domains of this host by UUID; `None` until they were listed once.
#[derive(Default)]
pub struct Marks(Shared<Option<BTreeMap<String, Known>>>);

/// Unmanaged domains in a status at most.
const LISTED: usize = 100;

impl Marks {
    /// Replaces all.
    pub fn replace(&self, all: BTreeMap<String, Known>) {
        *self.0.lock() = Some(all);
    }

    /// Replaces or removes one.
    pub fn set(&self, uuid: &str, known: Option<Known>) {
        if let Some(all) = self.0.lock().as_mut() {
            match known {
                Some(known) => drop(all.insert(uuid.to_owned(), known)),
                None => drop(all.remove(uuid)),
            }
        }
    }

    /// Replaces one's mark: libvirt tells of no change there.
    pub fn set_mark(&self, uuid: &str, mark: Option<Mark>) {
        if let Some(known) = self.0.lock().as_mut().and_then(|all| all.get_mut(uuid)) {
            known.mark = mark;
        }
    }

    /// Whether all domains were listed once.
    pub fn are_known(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Whose the domain is.
    pub fn owner(&self, uuid: &str) -> Option<Owner> {
        self.0.lock().as_ref()?.get(uuid)?.mark.as_ref().map(|mark| mark.owner.clone())
    }

    /// UUID of the domain with the mark of that machine.
    pub fn find(&self, cluster: &str, namespace: &str, name: &str) -> Option<String> {
        let is = |owner: &Owner| owner.cluster == cluster && owner.namespace == namespace && owner.name == name;
        let all = self.0.lock();
        let found = all.as_ref()?.iter().find(|(_, known)| known.mark.as_ref().is_some_and(|mark| is(&mark.owner)));
        found.map(|(uuid, _)| uuid.clone())
    }

    /// UUIDs of the domains with marks of that namespace.
    pub fn of_namespace(&self, cluster: &str, namespace: &str) -> Vec<String> {
        let is = |owner: &Owner| owner.cluster == cluster && owner.namespace == namespace;
        let all = self.0.lock();
        let of = all.iter().flatten().filter(|(_, known)| known.mark.as_ref().is_some_and(|mark| is(&mark.owner)));
        of.map(|(uuid, _)| uuid.clone()).collect()
    }

    /// For `Host.status`: domains of the cluster, and all others. `None` until they were listed once.
    pub fn report(&self, cluster: &str) -> Option<(Vec<MarkedDomain>, UnmanagedDomains)> {
        let all = self.0.lock();
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for (uuid, known) in all.as_ref()? {
            match known.mark.as_ref().map(|mark| &mark.owner).filter(|owner| owner.cluster == cluster) {
                Some(owner) => ours.push(MarkedDomain {
                    namespace: owner.namespace.clone(),
                    name: owner.name.clone(),
                    uid: owner.uid.clone(),
                    uuid: uuid.clone(),
                }),
                None => others.push(UnmanagedDomain {
                    name: known.name.clone(),
                    uuid: uuid.clone(),
                    state: known.state.clone(),
                }),
            }
        }
        ours.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        others.sort_by(|a, b| a.name.cmp(&b.name));
        let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
        others.truncate(LISTED);
        Some((ours, UnmanagedDomains { count, domains: others }))
    }
}
