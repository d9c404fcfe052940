//! What to do next for one Snapshot on the host of its machine. Pure.
//!
//! An external snapshot is taken into overlays that are made first, blank and closed to others; libvirt then takes all disks at once or
//! none. Whoever comes after a kill sees the snapshot, or blank overlays to go on with or to remove:
//!
//! ```text
//!  (absent) ──prepare each overlay──▶ overlays blank ──take──▶ there ──merge (a job)──▶ gone
//!                                          │ ▲
//!                    a failed attempt, or  ▼ │ another attempt
//!                    deletion: discard ──▶ (absent)
//! ```
//!
//! A libvirtd that dies while it takes one may leave the disks on the overlays without a record, which is then written (`Step::Record`);
//! or QEMU on them without knowing it itself ([`Seen::adrift`]), until the machine is restarted. One that dies at the end of a merge may
//! leave each disk of it at another point ([`MergeStage`]).

pub mod binding;
pub mod concerned;
pub mod method;
pub mod removal;
mod seen;
pub mod status;
pub mod validate;

pub use seen::{Attempt, MergeStage, Observed, Overlay, OverlayFile, Seen, SeenDisk};
pub use validate::{Desired, Selection, validate};

use crate::virtual_machine::State;
use crds::TeardownPolicy;
use crds::snapshot::UsedMethod;
use crds::storage_volume::Format;
use jiff::Timestamp;
use libvirt_xml::snapshot::{Request, Snapshot};

/// What the manifest asks for as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Be there.
    Exist(Desired),
    /// Go, in the way that the controller decided.
    Vanish {
        /// What becomes of it in libvirt.
        policy: TeardownPolicy,
        /// Name of the snapshot.
        name: String,
        /// UID of the object that goes.
        uid: String,
    },
}

/// One effect on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a blank overlay.
    Prepare {
        /// Where.
        path: String,
        /// The file below it.
        below: String,
        /// That file's format.
        format: Format,
        /// Bytes that the guest sees.
        capacity: u64,
    },
    /// Remove a blank overlay that nothing names.
    Discard {
        /// Which.
        path: String,
    },
    /// Take it: all disks or none.
    Take {
        /// What libvirt is asked for.
        request: Request,
        /// How.
        method: UsedMethod,
    },
    /// Give libvirt the record of one that it took and did not write down.
    Record {
        /// What libvirt was asked for.
        request: Request,
        /// Whether the domain was on.
        on: bool,
    },
    /// Write whose it is into its record, or with `None` that it is nobody's.
    Claim {
        /// The object.
        uid: Option<String>,
    },
    /// Begin to merge it.
    Merge,
    /// Remove an overlay that QEMU has merged, and that the running guest has left.
    Drop {
        /// Which.
        overlay: String,
    },
    /// Take the machine's definition off overlays that were merged and are gone.
    Settle,
    /// Write into the record of a snapshot that it is kept in the file below one that was merged.
    Mend {
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Take libvirt's note off a record that something is still being merged into that snapshot.
    Clear {
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Take the disks that are merged out of its record.
    Strike,
    /// Remove the record of one that is merged.
    Forget,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is left to do.
    Done,
    /// This, then look again.
    Do(Step),
    /// Nothing until then, or until something happens.
    Wait {
        /// When to look again at the latest; absent: when something happens.
        until: Option<Timestamp>,
        /// Why, and what to do.
        why: Reason,
    },
    /// It cannot go, until something else changes.
    Blocked {
        /// When to look again at the latest; absent: when something happens.
        until: Option<Timestamp>,
        /// What blocks it and what to do first.
        why: Reason,
    },
    /// Nothing, until somebody changes something.
    Refuse(Reason),
}

/// A reason for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// CamelCase word.
    pub word: &'static str,
    /// What is so, and what to do.
    pub message: String,
}

impl Reason {
    /// From its parts.
    pub fn new(word: &'static str, message: impl Into<String>) -> Reason {
        Reason { word, message: message.into() }
    }
}

/// The smallest change that brings the host closer to `goal`.
pub fn next(goal: &Goal, seen: &Observed, now: Timestamp) -> Next {
    match (goal, seen) {
        (Goal::Exist(_), Observed::NoDomain(why)) | (_, Observed::Unsettled(why)) => {
            Next::Wait { until: None, why: why.clone() }
        }
        (Goal::Exist(want), Observed::Domain(seen)) => exist(want, seen, now),
        // What is no domain of the machine's any more is not touched; its snapshots went with it or are somebody's own.
        (Goal::Vanish { .. }, Observed::NoDomain(_)) => Next::Done,
        (Goal::Vanish { policy, name, uid }, Observed::Domain(seen)) => removal::next(*policy, name, uid, seen, now),
    }
}

/// The snapshot of that name in the domain.
pub fn find<'a>(seen: &'a Seen, name: &str) -> Option<&'a Snapshot> {
    seen.snapshots.iter().find(|snapshot| snapshot.name == name)
}

pub(crate) fn wait(word: &'static str, message: impl Into<String>) -> Next {
    Next::Wait { until: None, why: Reason::new(word, message) }
}

fn refuse(word: &'static str, message: impl Into<String>) -> Next {
    Next::Refuse(Reason::new(word, message))
}

fn exist(want: &Desired, seen: &Seen, now: Timestamp) -> Next {
    match find(seen, &want.name).map(|found| found.uid.as_deref()) {
        // A libvirtd that dies as it writes a record reads it again from a file that it never removes: written once more, that file goes.
        Some(Some(uid)) if uid == want.uid && matches!(seen.attempt, Attempt::Failed { .. }) && !seen.was_there => {
            Next::Do(Step::Claim { uid: Some(want.uid.clone()) })
        }
        Some(Some(uid)) if uid == want.uid => Next::Done,
        // Of an object of this name that is gone: the shell has read the live one afresh.
        Some(Some(_)) => Next::Do(Step::Claim { uid: Some(want.uid.clone()) }),
        Some(None) => refuse(
            "Conflict",
            format!(
                "the machine has a snapshot {} that was not made for this object; it is not touched; use another name",
                want.name
            ),
        ),
        // Taking it now would give another moment the old one's name.
        None if seen.was_there => {
            refuse("Lost", format!("libvirt has no snapshot {} any more; delete this object", want.name))
        }
        None => take(want, seen, now),
    }
}

fn take(want: &Desired, seen: &Seen, now: Timestamp) -> Next {
    if seen.machine_goes {
        return wait("MachineTerminating", "the machine is being deleted");
    }
    if let Some(why) = adrift(seen).or_else(|| left_behind(seen)) {
        return Next::Wait { until: None, why };
    }
    if seen.attempt == Attempt::Merging || seen.merging.is_some() {
        return wait("Merging", "another snapshot of the machine is being merged");
    }
    match seen.state {
        State::Running | State::Paused | State::Off(_) => {}
        State::ShuttingDown | State::Crashed => {
            return wait(
                "GuestNotSteady",
                "the guest is shutting down or has crashed; it is taken when it runs or is off",
            );
        }
    }
    if let Attempt::Failed { message, again } = &seen.attempt
        && now < *again
    {
        // Nothing is left over of what failed.
        return discard(seen).unwrap_or_else(|| Next::Wait {
            until: Some(*again),
            why: Reason::new("SnapshotFailed", message.clone()),
        });
    }
    method::step(want, seen)
}

/// Nothing is asked of a libvirt that speaks to QEMU of files which the guest has left.
pub(crate) fn adrift(seen: &Seen) -> Option<Reason> {
    let message = match (&seen.adrift, &seen.unwritten) {
        (Some(path), _) => format!(
            "libvirt died while it took or merged a snapshot, and does not know how QEMU uses {path}; restart the machine"
        ),
        (None, Some(other)) => format!("libvirt has yet to be told of snapshot {other}, which it took as it died"),
        (None, None) => return None,
    };
    Some(Reason::new("LibvirtBehind", message))
}

/// libvirt died between its notes on the guest and on the definition. Only a snapshot that never was there makes the machine's plan bring
/// the definition onto its overlays: until that is done, it is neither written down nor let go.
pub(crate) fn left_behind(seen: &Seen) -> Option<Reason> {
    let behind = seen.disks.iter().find_map(|disk| match &disk.overlay {
        Overlay::At { path, file: OverlayFile::On { .. } } if disk.file != *path => Some(path),
        Overlay::At { .. } | Overlay::NoPlace => None,
    });
    behind.map(|path| {
        let message =
            format!("libvirt died while it took a snapshot: the machine's definition does not name {path} yet");
        Reason::new("LibvirtBehind", message)
    })
}

/// Removes a blank overlay that nothing names.
pub(crate) fn discard(seen: &Seen) -> Option<Next> {
    let blank = seen.disks.iter().find_map(|disk| match &disk.overlay {
        Overlay::At { path, file: OverlayFile::Blank | OverlayFile::Stale } => Some(path.clone()),
        Overlay::At {
            file: OverlayFile::Absent | OverlayFile::Used | OverlayFile::On { .. } | OverlayFile::Other,
            ..
        }
        | Overlay::NoPlace => None,
    });
    blank.map(|path| Next::Do(Step::Discard { path }))
}

#[cfg(test)]
mod tests;
