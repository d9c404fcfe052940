//! Where a domain is behind its disks: a libvirtd that is killed between QEMU's switch to a snapshot's overlays and its own notes believes
//! in the files below, and one that is killed after a merge in overlays that are gone. Other overlays that are there are looked at only of
//! snapshots that were never there: what became of others is libvirt's to say. Blocking.

use super::observe::{format, place};
use super::vanish;
use crate::chains;
use crate::context::Context;
use crds::conditions::{Type, find};
use crds::storage_volume::Format;
use crds::{Snapshot, TeardownPolicy};
use kube::ResourceExt;
use libvirt_xml::{Disk, Domain, Facts};
use plan::names;
use plan::snapshot::status::was_there;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// How far a domain is behind.
#[derive(Default)]
pub struct Behind {
    /// Overlays that disks have gone on to, by the file that the definition names.
    pub ahead: BTreeMap<String, String>,
    /// A file of which libvirt does not know that the guest writes to it.
    pub adrift: Option<String>,
    /// Snapshots on whose overlays disks are: unless libvirt has a record of them, that is to be written before anything else is taken.
    pub on: Vec<String>,
}

/// An overlay over the file that the definition has for a disk.
struct Over {
    file: String,
    path: String,
    /// Whether libvirt says that the running guest is on it.
    known: bool,
    /// Whether something was written into it.
    written: bool,
}

/// Looks at a machine's definition and at what libvirt believes that its running guest has.
///
/// # Errors
/// The file system's: an overlay that cannot be read may be what the guest writes to.
pub fn behind(
    context: &Context,
    (namespace, machine): (&str, &str),
    config: &Domain,
    live: Option<&(Domain, Facts)>,
) -> io::Result<Behind> {
    let mut behind = Behind::default();
    let has = |disk: &Disk| live.and_then(|(live, _)| live.disks.iter().find(|other| other.name == disk.name));
    for snapshot in context.stores.snapshots.state() {
        let is_of = snapshot.namespace().as_deref() == Some(namespace) && snapshot.spec.virtual_machine == machine;
        if !is_of || snapshot.status.as_ref().is_some_and(was_there) {
            continue;
        }
        let (name, uid) = (snapshot.name_any(), snapshot.uid().unwrap_or_default());
        let mut over = Vec::new();
        for disk in &config.disks {
            let below = match format(disk.format) {
                Format::Raw => Vec::new(),
                Format::Qcow2 => chains::below(&disk.file)?,
            };
            let Some(path) = place(context, &disk.file, &below, &name, &uid) else { continue };
            if path == disk.file {
                // The definition was put right; the guest's next start has yet to follow.
                let left = has(disk).is_some_and(|has| below.contains(&has.file));
                behind.adrift = behind.adrift.or_else(|| left.then_some(path));
                if !is_given_up(&snapshot) {
                    behind.on.push(name.clone());
                }
            } else if chains::below(&path)?.first() == Some(&disk.file) {
                let known = has(disk).is_some_and(|has| has.file == path);
                // They were made blank, and nobody but a guest writes into them.
                let written = !chains::is_blank(Path::new(&path))?;
                over.push(Over { file: disk.file.clone(), path, known, written });
            }
        }
        // QEMU switches all or none: those that nothing was written into yet go with the others.
        if over.iter().any(|over| over.known || over.written) {
            let unknown = over.iter().find(|over| !over.known).map(|over| over.path.clone());
            behind.adrift = behind.adrift.or(unknown);
            behind.ahead.extend(over.into_iter().map(|over| (over.file, over.path)));
        }
    }
    let is_left = |is: &str, was: &str| is != was && names::is_same_volume(is, was) && is_gone(was);
    let is_over_nothing = |disk: &&Disk| {
        let chain = live.and_then(|(_, facts)| facts.disks.iter().find(|chain| chain.target == disk.target));
        chain.is_some_and(|chain| chain.below.iter().chain([&chain.file]).any(|file| is_left(&disk.file, file)))
    };
    let merged = || config.disks.iter().find(is_over_nothing).map(|disk| disk.file.clone());
    behind.adrift = behind.adrift.or_else(merged);
    Ok(behind)
}

/// Whether a file is not there, in a directory that is.
pub fn is_gone(file: &str) -> bool {
    let path = Path::new(file);
    let is_absent = fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    is_absent && path.parent().is_some_and(Path::is_dir)
}

/// Whether no record of it will be written. One that is deleted gets one to be merged.
fn is_given_up(snapshot: &Snapshot) -> bool {
    if snapshot.metadata.deletion_timestamp.is_some() {
        return vanish(snapshot).is_some_and(|(policy, _)| policy != TeardownPolicy::Delete);
    }
    let conditions = snapshot.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    find(conditions, Type::Ready).is_some_and(|ready| ready.reason == "Lost")
}
