//! One look at the domain of a snapshot's machine, its snapshots and the files beside its disks.

use super::behind::behind;
use super::merged::{Looked, stage};
use crate::chains;
use crate::context::Context;
use crate::virtual_machine::observe::state;
use crds::snapshot::Snapshot;
use crds::storage_volume::Format;
use crds::virtual_machine::VirtualMachine;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use libvirt::DomainDetail;
use libvirt_xml::{DiskFormat, Domain, Facts, Merged, domain_and_facts, mark_of, snapshot};
use plan::names;
use plan::snapshot::status::was_there;
use plan::snapshot::{Attempt, MergeStage, Observed, Overlay, OverlayFile, Reason, Seen, SeenDisk};
use plan::virtual_machine::power::is_merged_by_libvirt;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// What was seen, and what steps need of it.
pub struct Sight {
    /// What was seen.
    pub observed: Observed,
    /// UUID of the domain; empty without one.
    pub uuid: String,
    /// Number of the guest's run; absent while it is off.
    pub run: Option<u32>,
    /// The domain's inactive XML; empty without one.
    pub inactive_xml: String,
    /// Overlays of the snapshot that were merged and are gone.
    pub merged: Vec<Merged>,
    /// Bytes that the guest sees of the files that the snapshot keeps.
    pub sizes: BTreeMap<String, u64>,
}

/// What this agent knows by itself. It is read before libvirt is asked: a merge that ends in between is then seen as one that goes on, and
/// not as a snapshot that is still there.
struct Known {
    machine_goes: bool,
    attempt: Attempt,
    merging: Option<String>,
}

/// Looks.
///
/// # Errors
/// libvirt's answer.
pub async fn observe(context: &Context, of: &Snapshot) -> libvirt::Result<Sight> {
    let nothing = |observed| {
        let (uuid, inactive_xml) = (String::new(), String::new());
        Ok(Sight { observed, uuid, run: None, inactive_xml, merged: Vec::new(), sizes: BTreeMap::new() })
    };
    let no_domain = |word, message: String| nothing(Observed::NoDomain(Reason::new(word, message)));
    let (namespace, machine) = (of.namespace().unwrap_or_default(), &of.spec.virtual_machine);
    let Some(vm) = context.stores.machines.get(&ObjectRef::new(machine).within(&namespace)) else {
        return no_domain("MachineNotFound", format!("there is no VirtualMachine {machine} on this host"));
    };
    if !is_owner(&vm, of) {
        return no_domain("MachineReplaced", format!("VirtualMachine {machine} is not the one that this was made for"));
    }
    let unsettled = || {
        let message = format!("the host does not know yet whether machine {machine} has its domain");
        nothing(Observed::Unsettled(Reason::new("MachineNotReady", message)))
    };
    if !context.marks.are_known() {
        return unsettled();
    }
    let known = Known {
        machine_goes: vm.metadata.deletion_timestamp.is_some(),
        attempt: context.attempts.of(&of.uid().unwrap_or_default()),
        merging: context.attempts.merging(&namespace, machine, of.uid().as_deref()),
    };
    let none_yet = || no_domain("MachineNotReady", format!("machine {machine} has no domain yet"));
    let Some(uuid) = uuid_of(context, &namespace, machine).await? else { return none_yet() };
    let (detail, records) = tokio::try_join!(context.libvirt.domain(&uuid), context.libvirt.snapshots(&uuid))?;
    let Some(detail) = detail else { return none_yet() };
    if !is_marked(context, &namespace, machine, &detail)? {
        return none_yet();
    }
    let (domain, facts) = domain_and_facts(&detail.inactive_xml).map_err(unreadable)?;
    let is_machines = domain.mark.as_ref().is_some_and(|mark| Some(&mark.owner.uid) == vm.metadata.uid.as_ref());
    let (true, Some(records)) = (is_machines, records) else { return unsettled() };
    let snapshots = records.iter().map(|r| snapshot::Snapshot::parse(&r.xml)).collect::<Result<Vec<_>, _>>();
    let (snapshots, name) = (snapshots.map_err(unreadable)?, of.name_any());
    let kept = snapshots.iter().filter(|snapshot| snapshot.name == name).flat_map(|snapshot| &snapshot.disks);
    let sizes = kept.filter_map(|disk| Some((disk.file.clone(), capacity(&disk.file, disk.format)?))).collect();
    let live = detail.live_xml.as_deref().map(domain_and_facts).transpose().map_err(unreadable)?;
    let own = snapshots.iter().find(|snapshot| snapshot.name == name);
    let (stage, merged) = match own.filter(|_| of.metadata.deletion_timestamp.is_some()) {
        Some(record) => {
            let (domain, records, live, attempt) = (&*uuid, &*snapshots, live.as_ref(), &known.attempt);
            stage(context, &Looked { domain, record, records, config: &facts, live, attempt }).await
        }
        None => (MergeStage::NotBegun, Vec::new()),
    };
    let (inactive_xml, run) = (detail.inactive_xml.clone(), detail.summary.id);
    let seen = seen(context, of, known, detail, (&domain, &facts, live), snapshots, stage)?;
    Ok(Sight { observed: Observed::Domain(Box::new(seen)), uuid, run, sizes, inactive_xml, merged })
}

/// UUID of the domain that may be the machine's.
async fn uuid_of(context: &Context, namespace: &str, machine: &str) -> libvirt::Result<Option<String>> {
    match context.marks.find(&context.cluster, namespace, machine) {
        Some(uuid) => Ok(Some(uuid)),
        None => context.libvirt.domain_named(&names::domain(namespace, machine)).await,
    }
}

/// Whether a domain carries the machine's mark, of whatever uid.
fn is_marked(context: &Context, namespace: &str, machine: &str, detail: &DomainDetail) -> libvirt::Result<bool> {
    let mark = mark_of(&detail.inactive_xml).map_err(unreadable)?;
    Ok(mark.is_some_and(|mark| {
        let owner = mark.owner;
        owner.cluster == context.cluster && owner.namespace == namespace && owner.name == machine
    }))
}

/// A machine that was made anew under the name takes its domain over, but not the snapshots' objects of the one before it.
fn is_owner(vm: &VirtualMachine, snapshot: &Snapshot) -> bool {
    let mut owners = snapshot.owner_references().iter().filter(|owner| owner.kind == "VirtualMachine").peekable();
    owners.peek().is_none() || owners.any(|owner| Some(&owner.uid) == vm.metadata.uid.as_ref())
}

fn seen(
    context: &Context,
    of: &Snapshot,
    known: Known,
    detail: DomainDetail,
    (domain, own, live): (&Domain, &Facts, Option<(Domain, Facts)>),
    snapshots: Vec<snapshot::Snapshot>,
    merged: MergeStage,
) -> libvirt::Result<Seen> {
    let chains = chains::of(domain.disks.iter().map(|disk| (disk.file.as_str(), format(disk.format))));
    let named = own.files.iter().chain(live.iter().flat_map(|(_, live)| &live.files)).chain(chains.values().flatten());
    let used: BTreeSet<&String> = named.chain(snapshots.iter().flat_map(|snapshot| &snapshot.files)).collect();
    let (name, uid) = (of.name_any(), of.uid().unwrap_or_default());
    let disk = |disk: &libvirt_xml::Disk| {
        let size = capacity(&disk.file, disk.format);
        let below = chains.get(&disk.file).map_or(&[][..], Vec::as_slice);
        let now = live.iter().flat_map(|(running, _)| &running.disks).find(|now| now.name == disk.name).unwrap_or(disk);
        SeenDisk {
            name: disk.name.clone(),
            target: disk.target.clone(),
            format: format(disk.format),
            read_only: disk.read_only,
            overlay: match place(context, &disk.file, below, &name, &uid) {
                None => Overlay::NoPlace,
                Some(path) => {
                    let file = match used.contains(&path) {
                        true if now.file == path => {
                            OverlayFile::On { blank: chains::is_blank(Path::new(&path)).unwrap_or(false) }
                        }
                        true => OverlayFile::Used,
                        false => there(&path, &disk.file, size),
                    };
                    Overlay::At { path, file }
                }
            },
            file: disk.file.clone(),
            capacity: size,
        }
    };
    let is_own = |target: &String| domain.disks.iter().any(|disk| disk.target == *target);
    let state = state(detail.summary.state);
    let attempt = match known.attempt {
        // An agent before this one began it: libvirt goes on with it.
        Attempt::None if domain.mark.as_ref().is_some_and(|mark| is_merged_by_libvirt(mark.run, state)) => {
            Attempt::Merging
        }
        attempt => attempt,
    };
    let (namespace, machine) = (of.namespace().unwrap_or_default(), &of.spec.virtual_machine);
    let behind = behind(context, (&namespace, machine), domain, live.as_ref()).map_err(unlooked)?;
    let has_none = |other: &String| *other != name && !snapshots.iter().any(|snapshot| snapshot.name == *other);
    let unwritten = behind.on.into_iter().find(has_none);
    Ok(Seen {
        state,
        machine_goes: known.machine_goes,
        disks: domain.disks.iter().map(disk).collect(),
        others: own.disks.iter().map(|disk| disk.target.clone()).filter(|target| !is_own(target)).collect(),
        snapshots,
        current: detail.current_snapshot,
        was_there: of.status.as_ref().is_some_and(was_there),
        adrift: behind.adrift.or_else(|| context.attempts.held(&detail.summary.uuid, detail.summary.id)),
        unwritten,
        attempt,
        merging: known.merging,
        merged,
        can_merge: context.facts.lock().as_ref().is_some_and(|facts| facts.capabilities.external_snapshot),
    })
}

/// Where a disk goes on: beside the first of its files that is a volume's in a pool of ours.
pub fn place(context: &Context, file: &str, below: &[String], snapshot: &str, uid: &str) -> Option<String> {
    let pools = context.stores.pools.state();
    std::iter::once(file).chain(below.iter().map(String::as_str)).find_map(|file| {
        let (dir, file) = file.rsplit_once('/')?;
        pools.iter().any(|pool| Path::new(&pool.spec.dir.path) == Path::new(dir)).then_some(())?;
        Some(format!("{dir}/{}", names::overlay_file(file, snapshot, uid)?))
    })
}

/// What is at an overlay's path that nothing names.
fn there(path: &str, below: &str, capacity: Option<u64>) -> OverlayFile {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // A half one is thrown away as a stale one is.
            return if super::execute::part(Path::new(path)).exists() {
                OverlayFile::Stale
            } else {
                OverlayFile::Absent
            };
        }
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) | Err(_) => return OverlayFile::Other,
    }
    let over = chains::below(path).ok().and_then(|below| below.into_iter().next());
    match (over, chains::is_blank(Path::new(path))) {
        (Some(over), Ok(true)) => {
            let fits = over == below && chains::capacity(Path::new(path), Format::Qcow2) == capacity;
            if fits { OverlayFile::Blank } else { OverlayFile::Stale }
        }
        (Some(_) | None, _) => OverlayFile::Other,
    }
}

fn capacity(file: &str, of: DiskFormat) -> Option<u64> {
    chains::capacity(Path::new(file), format(of))
}

/// The format in the API's words.
pub fn format(format: DiskFormat) -> Format {
    match format {
        DiskFormat::Raw => Format::Raw,
        DiskFormat::Qcow2 => Format::Qcow2,
    }
}

/// Nothing is done on a look that left an overlay out.
pub fn unlooked(error: io::Error) -> libvirt::Error {
    libvirt::Error { act: "look into the overlays", kind: libvirt::Kind::Other, message: error.to_string() }
}

fn unreadable(error: libvirt_xml::Error) -> libvirt::Error {
    libvirt::Error { act: "read the domain's XML", kind: libvirt::Kind::Other, message: error.to_string() }
}
