//! Calls about domains' snapshots.

use crate::Libvirt;
use crate::domains::{absent_as_none, current_snapshot};
use crate::error::{Kind, Result};
use crate::lane::Lane;
use std::collections::BTreeMap;
use std::time::Duration;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

/// A snapshot and its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDetail {
    /// Its name.
    pub name: String,
    /// All that libvirt knows of it.
    pub xml: String,
    /// Whether the domain goes on from it.
    pub current: bool,
}

/// How a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Within the files of a domain that is off.
    Internal,
    /// Disks only, all or none, into files that are there.
    External,
}

/// A merge takes as long as copying what was written since.
const MERGE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Libvirt {
    /// Domains that have snapshots, by UUID, with their number; in one call and one more for each of those.
    pub async fn snapshot_counts(&self) -> Result<BTreeMap<String, u32>> {
        self.list("virConnectListAllDomains(HAS_SNAPSHOT)", |connect| {
            let domains = connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT)?;
            let count = |domain: Domain| Ok((domain.uuid_string()?, domain.num_snapshots(0)?));
            domains.into_iter().map(count).collect()
        })
        .await
    }

    /// The snapshots of the domain of this UUID.
    pub async fn snapshots(&self, uuid: &str) -> Result<Option<Vec<SnapshotDetail>>> {
        let uuid = uuid.to_owned();
        absent_as_none(
            self.list("virDomainListAllSnapshots", move |connect| {
                let domain = connect.lookup_domain_by_uuid_string(&uuid)?;
                let all = domain.list_all_snapshots(0)?;
                let current = current_snapshot(&domain, u32::try_from(all.len()).unwrap_or(u32::MAX))?;
                let detail = |snapshot: virt::domain_snapshot::DomainSnapshot| {
                    let name = snapshot.name()?;
                    Ok(SnapshotDetail {
                        current: current.as_ref() == Some(&name),
                        name,
                        // What it says of secrets must survive being written again.
                        xml: snapshot.xml_desc(sys::VIR_DOMAIN_SNAPSHOT_XML_SECURE)?,
                    })
                };
                all.into_iter().map(detail).collect()
            })
            .await,
        )
    }

    /// Takes a snapshot.
    pub async fn take_snapshot(&self, uuid: &str, xml: String, take: Take) -> Result<()> {
        let flags = match take {
            Take::Internal => 0,
            Take::External => {
                sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
                    | sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
                    | sys::VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            }
        };
        self.make("virDomainSnapshotCreateXML", uuid, xml, flags).await
    }

    /// Writes the record of a snapshot that is there again, changed.
    pub async fn redefine_snapshot(&self, uuid: &str, xml: String, current: bool) -> Result<()> {
        let current = if current { sys::VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT } else { 0 };
        let flags = sys::VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE | current;
        self.make("virDomainSnapshotCreateXML(REDEFINE)", uuid, xml, flags).await
    }

    /// Removes the record of a snapshot and nothing else.
    pub async fn forget_snapshot(&self, uuid: &str, name: &str) -> Result<()> {
        let (uuid, name) = (uuid.to_owned(), name.to_owned());
        let call = move |connect: &Connect| {
            let domain = connect.lookup_domain_by_uuid_string(&uuid)?;
            let only_record = sys::VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY;
            Domain::lookup_snapshot_by_name(&domain, &name, 0)?.delete(only_record)
        };
        self.step("virDomainSnapshotDelete(METADATA_ONLY)", self.lanes.settings().call, call).await
    }

    async fn make(&self, act: &'static str, uuid: &str, xml: String, flags: u32) -> Result<()> {
        let uuid = uuid.to_owned();
        let call = move |connect: &Connect| {
            connect.lookup_domain_by_uuid_string(&uuid)?.create_snapshot_xml(&xml, flags).map(drop)
        };
        self.step(act, self.lanes.settings().start, call).await
    }

    /// Merges a snapshot into what came before and after it, and removes it. It may take long and has a connection of its own; libvirt
    /// goes on with it when the caller is gone. One that is not there is no error.
    pub async fn delete_snapshot(&self, uuid: &str, name: &str) -> Result<()> {
        let (uuid, name) = (uuid.to_owned(), name.to_owned());
        let call = move |connect: &Connect| {
            let domain = connect.lookup_domain_by_uuid_string(&uuid)?;
            Domain::lookup_snapshot_by_name(&domain, &name, 0)?.delete(0)
        };
        match self.lanes.run(Lane::Jobs, "virDomainSnapshotDelete", MERGE, call).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            other => other,
        }
    }
}
