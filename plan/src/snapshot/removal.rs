//! How a snapshot goes, and what blocks it. Pure.

use super::{Attempt, Merged, Next, Reason, Seen, Step, adrift, discard, find, left_behind, method, wait};
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
                Some(why) if !seen.machine_goes && !seen.was_there => Next::Blocked { until: None, why },
                Some(_) | None => discard(seen).or_else(|| unwritten(policy, name, uid, seen)).unwrap_or(Next::Done),
            }
        }
        (TeardownPolicy::Retain | TeardownPolicy::Orphan, Some(_)) => Next::Do(Step::Claim { uid: None }),
        (TeardownPolicy::Delete, Some(found)) => merge(found, seen, now),
    }
}

/// The disks are on its overlays and libvirt has no record of it, without which nothing merges them.
fn unwritten(policy: TeardownPolicy, name: &str, uid: &str, seen: &Seen) -> Option<Next> {
    let is_to_merge = policy == TeardownPolicy::Delete && !seen.machine_goes && !seen.was_there;
    is_to_merge.then(|| method::done_of((name, uid), seen)).flatten().map(Next::Do)
}

fn merge(found: &Snapshot, seen: &Seen, now: Timestamp) -> Next {
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
    match &seen.merged {
        Merged::No => {}
        // First of all: a guest that starts on it again loses what it wrote since.
        Merged::InQemu { overlay } => return Next::Do(Step::Drop { overlay: overlay.clone() }),
        Merged::InFiles => return Next::Do(Step::Settle),
        Merged::Partly => return Next::Do(Step::Strike),
        Merged::Everywhere => return Next::Do(Step::Forget),
    }
    if let Some(why) = adrift(seen).or_else(|| blocker(found, seen)) {
        return Next::Blocked { until: None, why };
    }
    match &seen.attempt {
        Attempt::Failed { message, again } if now < *again => {
            Next::Blocked { until: Some(*again), why: Reason::new("MergeFailed", message.clone()) }
        }
        Attempt::None | Attempt::Merging | Attempt::Failed { .. } => Next::Do(Step::Merge),
    }
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
