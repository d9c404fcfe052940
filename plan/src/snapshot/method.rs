//! How a snapshot is taken: which method, which disks, and the next step to it. Pure.

use super::{Desired, Next, Overlay, OverlayFile, Seen, SeenDisk, Selection, Step, refuse, wait};
use crate::virtual_machine::State;
use crds::snapshot::{Method, UsedMethod};
use crds::storage_volume::Format;
use libvirt_xml::snapshot::{Part, Place, Request, RequestedDisk};

/// The next step to a snapshot that is not there.
pub(crate) fn step(want: &Desired, seen: &Seen) -> Next {
    let (method, disks) = match (method(want.method, seen), selected(&want.disks, &seen.disks)) {
        (Ok(method), Ok(disks)) => (method, disks),
        (Err(refused), _) | (_, Err(refused)) => return refused,
    };
    match method {
        UsedMethod::Internal => internal(want, seen, &disks),
        UsedMethod::External => external(want, seen, &disks),
    }
}

/// libvirt can neither revert nor delete where both methods meet in one domain.
fn method(wanted: Method, seen: &Seen) -> Result<UsedMethod, Next> {
    let has = |place: Place| seen.snapshots.iter().any(|snapshot| snapshot.places.contains(&place));
    let mixed = |has: &str| {
        let message =
            format!("the machine has {has} snapshots, and one machine's must all be of one method; delete those first");
        Err(refuse("MixedMethods", message))
    };
    match (has(Place::Internal), has(Place::External), wanted) {
        (true, true, _) => mixed("internal and external"),
        (true, false, Method::External) => mixed("internal"),
        (false, true, Method::Internal) => mixed("external"),
        (true, false, Method::Auto | Method::Internal) | (false, false, Method::Internal) => Ok(UsedMethod::Internal),
        (false, true, Method::Auto | Method::External) | (false, false, Method::Auto | Method::External) => {
            Ok(UsedMethod::External)
        }
    }
}

fn selected<'a>(selection: &Selection, disks: &'a [SeenDisk]) -> Result<Vec<&'a SeenDisk>, Next> {
    let named = match selection {
        Selection::All => &Vec::new(),
        Selection::Only(names) | Selection::Without(names) => names,
    };
    if let Some(absent) = named.iter().find(|name| !disks.iter().any(|disk| disk.name == **name)) {
        return Err(refuse("DiskNotFound", format!("spec.disks names {absent}, which the machine does not have")));
    }
    let chosen: Vec<_> = match selection {
        Selection::All => disks.iter().filter(|disk| !disk.read_only).collect(),
        Selection::Without(names) => {
            disks.iter().filter(|disk| !disk.read_only && !names.contains(&disk.name)).collect()
        }
        Selection::Only(names) => disks.iter().filter(|disk| names.contains(&disk.name)).collect(),
    };
    if let Some(fixed) = chosen.iter().find(|disk| disk.read_only) {
        return Err(refuse(
            "ReadOnlyDisk",
            format!("disk {} cannot be written to: there is nothing to keep", fixed.name),
        ));
    }
    if chosen.is_empty() {
        return Err(refuse("NoDisks", "no disk that the guest can write to is left to take a snapshot of"));
    }
    Ok(chosen)
}

fn internal(want: &Desired, seen: &Seen, disks: &[&SeenDisk]) -> Next {
    if let Some(raw) = disks.iter().find(|disk| disk.format == Format::Raw) {
        let message =
            format!("disk {} is Raw, which cannot keep a snapshot within itself; use method External", raw.name);
        return refuse("RawDisk", message);
    }
    let left =
        seen.disks.iter().find(|disk| !disk.read_only && !disks.iter().any(|chosen| chosen.target == disk.target));
    if let Some(left) = left.map(|disk| &disk.target).or(seen.others.first()) {
        let message =
            format!("an internal snapshot is of all disks, and {left} would be left out; use method External");
        return refuse("PartialInternal", message);
    }
    if !matches!(seen.state, State::Off(_)) {
        let message = "the guest is on, and an internal snapshot would hold its memory too; stop the machine, or use method External";
        return refuse("GuestIsOn", message);
    }
    // libvirt leaves those that cannot be written to out by itself, and wants no other to be named so.
    let request = request((&want.name, &want.uid), seen, disks, |_| Part::Internal);
    let disks = request.disks.into_iter().filter(|disk| disk.part == Part::Internal).collect();
    Next::Do(Step::Take { request: Request { disks, ..request }, method: UsedMethod::Internal })
}

fn external(want: &Desired, seen: &Seen, disks: &[&SeenDisk]) -> Next {
    if !seen.can_merge {
        let message = "this host's libvirt cannot remove external snapshots (it says so in its capabilities); use method Internal";
        return refuse("ExternalUnsupported", message);
    }
    if let Some(on) = disks.iter().map(|disk| was_on(disk, seen)).collect::<Option<Vec<bool>>>() {
        return Next::Do(record((&want.name, &want.uid), seen, disks, &on));
    }
    let mut missing = None;
    for disk in disks {
        let Overlay::At { path, file } = &disk.overlay else {
            return refuse("NoPlace", format!("disk {}: its file {} lies in no StoragePool", disk.name, disk.file));
        };
        let Some(capacity) = disk.capacity else {
            return wait(
                "DiskUnreadable",
                format!("disk {}: its file {} is not there or cannot be read", disk.name, disk.file),
            );
        };
        match file {
            OverlayFile::Blank => {}
            OverlayFile::Absent => {
                missing.get_or_insert(Step::Prepare {
                    path: path.clone(),
                    below: disk.file.clone(),
                    format: disk.format,
                    capacity,
                });
            }
            OverlayFile::Stale => return Next::Do(Step::Discard { path: path.clone() }),
            OverlayFile::Used | OverlayFile::On { .. } => {
                let message = format!(
                    "the machine is on {path} already, but libvirt has no such snapshot any more; delete this object"
                );
                return refuse("Lost", message);
            }
            OverlayFile::Other => {
                return refuse(
                    "FileExists",
                    format!("{path} is there and is not touched; remove it, or use another name"),
                );
            }
        }
    }
    if let Some(prepare) = missing {
        return Next::Do(prepare);
    }
    let request = request((&want.name, &want.uid), seen, disks, on_overlay);
    Next::Do(Step::Take { request, method: UsedMethod::External })
}

/// The record of what was done of a snapshot of this name and UID that goes: libvirt merges what it knows of.
pub(crate) fn done_of(snapshot: (&str, &str), seen: &Seen) -> Option<Step> {
    let (disks, on): (Vec<_>, Vec<_>) = seen.disks.iter().filter_map(|disk| Some((disk, was_on(disk, seen)?))).unzip();
    (!disks.is_empty()).then(|| record(snapshot, seen, &disks, &on))
}

fn record(snapshot: (&str, &str), seen: &Seen, disks: &[&SeenDisk], on: &[bool]) -> Step {
    Step::Record { request: request(snapshot, seen, disks, on_overlay), on: on.contains(&true) }
}

fn on_overlay(disk: &SeenDisk) -> Part {
    match &disk.overlay {
        Overlay::At { path, .. } => Part::External { overlay: path.clone() },
        Overlay::NoPlace => Part::Excluded,
    }
}

/// Whether the domain was on when the disk was taken; absent when the disk is not on its overlay. One that is off and has written nothing
/// since was off.
fn was_on(disk: &SeenDisk, seen: &Seen) -> Option<bool> {
    match &disk.overlay {
        Overlay::At { file: OverlayFile::On { blank }, .. } => Some(!blank || !matches!(seen.state, State::Off(_))),
        Overlay::At { .. } | Overlay::NoPlace => None,
    }
}

fn request((name, uid): (&str, &str), seen: &Seen, disks: &[&SeenDisk], part: impl Fn(&SeenDisk) -> Part) -> Request {
    let is_in = |disk: &SeenDisk| disks.iter().any(|chosen| chosen.target == disk.target);
    let own = seen.disks.iter().map(|disk| RequestedDisk {
        target: disk.target.clone(),
        part: if is_in(disk) { part(disk) } else { Part::Excluded },
    });
    let others = seen.others.iter().map(|target| RequestedDisk { target: target.clone(), part: Part::Excluded });
    Request { name: name.to_owned(), uid: uid.to_owned(), disks: own.chain(others).collect() }
}
