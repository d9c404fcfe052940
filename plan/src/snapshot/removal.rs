//! How a snapshot goes, and what blocks it. Pure.

use super::{
    Attempt, MergeStage, Next, Overlay, OverlayFile, Reason, Seen, Step, adrift, discard, find, left_behind, method,
    wait,
};
use crate::virtual_machine::State;
use crds::TeardownPolicy;
use jiff::Timestamp;
use libvirt_xml::snapshot::{Place, Snapshot};

/// What to do next about a snapshot that goes.
pub(crate) fn next(policy: TeardownPolicy, name: &str, uid: &str, seen: &Seen, now: Timestamp) -> Next {
    let ours = find(seen, name).filter(|found| found.uid.as_deref() == Some(uid));
    match (policy, ours) {
        (TeardownPolicy::Keep, _) => Next::Done,
        (TeardownPolicy::Delete | TeardownPolicy::Retain | TeardownPolicy::Orphan, None) => {
            match adrift(seen).or_else(|| left_behind(seen)) {
                // Its object is what the overlay is known by, unless libvirt once knew it.
                Some(why) if !seen.machine_goes && !seen.was_there && has_overlay(seen) => {
                    Next::Blocked { until: None, why }
                }
                Some(_) | None => {
                    let unwritten = || unwritten(policy, (name, uid), seen, now);
                    discard(seen).or_else(unwritten).unwrap_or(Next::Done)
                }
            }
        }
        (TeardownPolicy::Retain | TeardownPolicy::Orphan, Some(_)) => Next::Do(Step::Claim { uid: None }),
        (TeardownPolicy::Delete, Some(found)) => merge(found, seen, now),
    }
}

fn has_overlay(seen: &Seen) -> bool {
    let is_there = |overlay: &Overlay| match overlay {
        Overlay::At { file, .. } => *file != OverlayFile::Absent,
        Overlay::NoPlace => false,
    };
    seen.disks.iter().any(|disk| is_there(&disk.overlay))
}

/// The disks are on its overlays and libvirt has no record of it, without which nothing merges them.
fn unwritten(policy: TeardownPolicy, snapshot: (&str, &str), seen: &Seen, now: Timestamp) -> Option<Next> {
    let is_its_own = find(seen, snapshot.0).is_none() && !seen.was_there;
    if policy != TeardownPolicy::Delete || !is_its_own || seen.machine_goes {
        return None;
    }
    let record = method::done_of(snapshot, seen)?;
    Some(failed("RecordFailed", seen, now).unwrap_or(Next::Do(record)))
}

/// What was tried last failed, and it is not time to try it again.
fn failed(word: &'static str, seen: &Seen, now: Timestamp) -> Option<Next> {
    match &seen.attempt {
        Attempt::Failed { message, again } if now < *again => {
            Some(Next::Blocked { until: Some(*again), why: Reason::new(word, message.clone()) })
        }
        Attempt::None | Attempt::Merging | Attempt::Failed { .. } => None,
    }
}

fn merge(found: &Snapshot, seen: &Seen, now: Timestamp) -> Next {
    // First of all: a guest that starts on it again loses what it wrote since.
    if let MergeStage::InQemu { overlay } = &seen.merged {
        return Next::Do(Step::Drop { overlay: overlay.clone() });
    }
    // The domain takes its snapshots along: nothing has to be merged for it.
    if seen.machine_goes {
        return wait("MachineTerminating", "the machine is being deleted, and its snapshots with it");
    }
    if seen.attempt == Attempt::Merging {
        return wait("Merging", "it is being merged");
    }
    if let Some(other) = &seen.merging {
        return wait("Merging", format!("snapshot {other} of the machine is being merged first"));
    }
    let note = || unfinished(found, seen).map(|snapshot| Step::Clear { snapshot });
    match &seen.merged {
        MergeStage::NotBegun | MergeStage::InQemu { .. } => {}
        MergeStage::InFiles => return Next::Do(Step::Settle),
        MergeStage::Below { snapshot } => return Next::Do(Step::Mend { snapshot: snapshot.clone() }),
        MergeStage::Partly => return Next::Do(note().unwrap_or(Step::Strike)),
        MergeStage::Everywhere => return Next::Do(note().unwrap_or(Step::Forget)),
    }
    if let Some(why) = adrift(seen).or_else(|| blocker(found, seen)) {
        return Next::Blocked { until: None, why };
    }
    // What was being merged into it and failed is whole above it.
    if found.unfinished {
        return Next::Do(Step::Clear { snapshot: found.name.clone() });
    }
    failed("MergeFailed", seen, now).unwrap_or(Next::Do(Step::Merge))
}

/// The snapshot into which libvirt believes that one is still being merged (`qemu_snapshot.c`, qemuSnapshotSetDiskDeleteInProgress); with
/// that note it could never be deleted.
fn unfinished(found: &Snapshot, seen: &Seen) -> Option<String> {
    let mut at = found;
    for _ in &seen.snapshots {
        at = find(seen, at.parent.as_deref()?)?;
        if at.unfinished {
            return Some(at.name.clone());
        }
    }
    None
}

/// What libvirt would refuse, told before it is tried (`qemu_snapshot.c`, qemuSnapshotDeleteValidate).
fn blocker(found: &Snapshot, seen: &Seen) -> Option<Reason> {
    if !found.places.contains(&Place::External) {
        return None;
    }
    let children: Vec<&str> = children(found, seen).collect();
    let line = line(seen);
    let aside: Vec<&str> = children.iter().copied().filter(|child| !line.contains(child)).collect();
    if children.len() > 1 {
        let message = format!(
            "{} snapshots follow it; delete first, with what follows them: {}",
            children.len(),
            if aside.len() == children.len() { &aside[1..] } else { &aside[..] }.join(", ")
        );
        return Some(Reason::new("SeveralChildren", message));
    }
    if let [child] = children[..]
        && !line.contains(&found.name.as_str())
    {
        let message = format!("the machine does not go on from it; delete first what follows it: {child}");
        return Some(Reason::new("NotInActiveChain", message));
    }
    if seen.state == State::Paused {
        let message = "the guest's processors stand still, and QEMU merges nothing then; let them run (virsh resume) or stop the machine";
        return Some(Reason::new("GuestPaused", message));
    }
    None
}

/// Names of the snapshots that follow one.
pub(crate) fn children<'a>(of: &'a Snapshot, seen: &'a Seen) -> impl Iterator<Item = &'a str> {
    let follows = |snapshot: &&Snapshot| snapshot.parent.as_ref() == Some(&of.name);
    seen.snapshots.iter().filter(follows).map(|snapshot| snapshot.name.as_str())
}

/// The snapshots that the machine goes on from: the current one, its parent, and so on.
fn line(seen: &Seen) -> Vec<&str> {
    let mut line = Vec::new();
    let mut at = seen.current.as_deref();
    while let Some(snapshot) = at.and_then(|name| find(seen, name)) {
        if line.contains(&snapshot.name.as_str()) {
            break;
        }
        line.push(snapshot.name.as_str());
        at = snapshot.parent.as_deref();
    }
    line
}
