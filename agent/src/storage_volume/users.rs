//! Who names a volume's file: domains of this host, whosever they are, and machines that another host may run.

use crate::chains;
use crate::context::Context;
use crds::storage_volume::StorageVolume;
use futures::future::join_all;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use libvirt::{DomainDetail, Kind};
use libvirt_xml::snapshot::Snapshot;
use libvirt_xml::{Facts, facts};
use plan::names::is_same_volume;
use plan::storage_volume::{How, User};
use shell::Error;
use std::path::{Path, PathBuf};

/// All of them, sorted.
///
/// # Errors
/// libvirt's answer.
pub async fn users(context: &Context, volume: &StorageVolume, path: &Path) -> Result<Vec<User>, Error> {
    let mut users = Vec::new();
    for domain in context.libvirt.domains().await.map_err(passing)? {
        let ours = context.marks.owner(&domain.uuid).is_some_and(|owner| owner.cluster == context.cluster);
        let how = match context.libvirt.domain(&domain.uuid).await {
            Ok(None) => None,
            Ok(Some(detail)) => how(context, &detail, path, ours).await?,
            // A domain whose QEMU hangs.
            Err(error) if error.kind == Kind::TimedOut => Some(How::Unknown),
            Err(error) => return Err(passing(error)),
        };
        users.extend(how.map(|how| User { domain: domain.name, how }));
    }
    users.extend(machines(context, volume));
    users.sort();
    users.dedup();
    Ok(users)
}

/// A file of this volume's name, or the file below its overlay, in a domain with our mark of the same namespace.
///
/// # Errors
/// libvirt's answer.
pub async fn adopted(
    context: &Context,
    namespace: &str,
    base: impl Fn(PathBuf) -> Option<PathBuf>,
) -> Result<Option<PathBuf>, Error> {
    let uuids = context.marks.of_namespace(&context.cluster, namespace);
    for looked in join_all(uuids.iter().map(|uuid| context.libvirt.domain(uuid))).await {
        let Some(detail) = looked.map_err(passing)? else { continue };
        let files = files_of(context, &detail).await?;
        if let Some(path) = files.into_iter().map(PathBuf::from).find_map(&base) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

async fn how(context: &Context, detail: &DomainDetail, path: &Path, ours: bool) -> Result<Option<How>, Error> {
    let is = |file: &String| Path::new(file) == path;
    let all = both(detail)?;
    if all.iter().flat_map(|facts| &facts.disks).any(|disk| disk.below.iter().any(is)) {
        return Ok(Some(How::BelowOverlay));
    }
    // The second is what runs.
    let open = all.get(1).and_then(|live| live.disks.iter().find(|disk| is(&disk.file)));
    // Also what lies over it, and what a snapshot holds on to.
    let shown = path.display().to_string();
    let held = files_of(context, detail).await?.iter().any(|file| is_same_volume(file, &shown));
    Ok(match open {
        Some(disk) if ours => Some(How::Runs { uuid: detail.summary.uuid.clone(), target: disk.target.clone() }),
        Some(_) => Some(How::RunsForeign),
        None if !ours && detail.live_xml.as_ref().is_some_and(|xml| names(xml, path)) => Some(How::RunsForeign),
        None => (held || xml_of(detail).into_iter().any(|xml| names(xml, path))).then_some(How::Off),
    })
}

/// In whatever way: as a file, as a volume of a pool, among QEMU's arguments. The file's name holds its UID, so that nothing else is called so.
fn names(xml: &str, path: &Path) -> bool {
    path.file_name().is_some_and(|file| xml.contains(&*file.to_string_lossy()))
}

/// Every file that a domain or one of its snapshots names, and what lies below.
async fn files_of(context: &Context, detail: &DomainDetail) -> Result<Vec<String>, Error> {
    let mut files = Vec::new();
    for facts in both(detail)? {
        files.extend(facts.layered.iter().flat_map(|file| chains::below(file).unwrap_or_default()));
        files.extend(facts.files);
    }
    if detail.snapshots > 0 {
        for snapshot in context.libvirt.snapshots(&detail.summary.uuid).await.map_err(passing)?.unwrap_or_default() {
            files.extend(Snapshot::parse(&snapshot.xml).map_err(unreadable)?.files);
        }
    }
    Ok(files)
}

/// In a shared pool the domain may be another host's.
fn machines(context: &Context, volume: &StorageVolume) -> Vec<User> {
    let namespace = volume.namespace().unwrap_or_default();
    let pool = context.stores.pools.get(&ObjectRef::new(&volume.spec.storage_pool));
    let shared = pool.is_none_or(|pool| pool.spec.shared);
    let here = |name: &str| context.stores.machines.get(&ObjectRef::new(name).within(&namespace)).is_some();
    let used_by = volume.status.iter().flat_map(|status| &status.used_by);
    used_by
        .map(|name| User {
            domain: plan::names::domain(&namespace, name),
            how: if shared && !here(name) { How::Elsewhere } else { How::Off },
        })
        .collect()
}

fn xml_of(detail: &DomainDetail) -> Vec<&String> {
    std::iter::once(&detail.inactive_xml).chain(&detail.live_xml).collect()
}

/// What the definition tells, and what runs.
fn both(detail: &DomainDetail) -> Result<Vec<Facts>, Error> {
    let all = xml_of(detail).into_iter().map(|xml| facts(xml)).collect::<Result<Vec<_>, _>>();
    all.map_err(unreadable)
}

fn unreadable(error: libvirt_xml::Error) -> Error {
    Error::Passing { act: "read a domain", message: error.to_string() }
}

fn passing(error: libvirt::Error) -> Error {
    Error::Passing { act: "ask libvirt", message: error.to_string() }
}
