//! What is seen of a snapshot's machine on its host.

use super::Reason;
use crate::virtual_machine::State;
use crds::storage_volume::Format;
use jiff::Timestamp;
use libvirt_xml::snapshot::Snapshot;

/// What is on the host: one look, one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// There is no domain of the machine's for certain.
    NoDomain(Reason),
    /// There may be one, and it cannot be told yet whether it is the machine's.
    Unsettled(Reason),
    /// The machine's domain.
    Domain(Box<Seen>),
}

/// The domain of a snapshot's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it runs.
    pub state: State,
    /// Whether its machine is being deleted: then its snapshots go with it.
    pub machine_goes: bool,
    /// Its disks with our alias, in its order.
    pub disks: Vec<SeenDisk>,
    /// Targets of its disks that are not ours.
    pub others: Vec<String>,
    /// All its snapshots, whoever made them.
    pub snapshots: Vec<Snapshot>,
    /// Name of the one that it goes on from.
    pub current: Option<String>,
    /// Whether the object once said that its snapshot is there.
    pub was_there: bool,
    /// A file that QEMU has open while libvirt, which died as QEMU turned to it, believes in another.
    pub adrift: Option<String>,
    /// Another snapshot that the disks are on, of which libvirt has yet to be given a record.
    pub unwritten: Option<String>,
    /// What this agent tried last for this snapshot.
    pub attempt: Attempt,
    /// Another snapshot of the domain that is being merged.
    pub merging: Option<String>,
    /// How far the snapshot was merged without a note of libvirt's, which died before it.
    pub merged: MergeStage,
    /// Whether this host's libvirt can merge external snapshots: what could never be removed is not taken.
    pub can_merge: bool,
}

/// A disk of the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDisk {
    /// Its name in the manifest.
    pub name: String,
    /// Its target.
    pub target: String,
    /// The file that it is on.
    pub file: String,
    /// That file's format.
    pub format: Format,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// Bytes that the guest sees; absent when its file cannot be read.
    pub capacity: Option<u64>,
    /// Where it would go on after this snapshot.
    pub overlay: Overlay,
}

/// The file on which a disk goes on after a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The disk's file lies in no pool of ours.
    NoPlace,
    /// In the pool of its volume.
    At {
        /// Path.
        path: String,
        /// What is there.
        file: OverlayFile,
    },
}

/// What is at an overlay's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayFile {
    /// Nothing.
    Absent,
    /// A blank overlay over the file that the disk is on.
    Blank,
    /// A blank overlay over another file: the disk went on since.
    Stale,
    /// A file that the domain or one of its snapshots names.
    Used,
    /// The disk is on it, though libvirt has no record of the snapshot.
    On {
        /// Whether nothing was written into it since.
        blank: bool,
    },
    /// Anything else; it is not touched.
    Other,
}

/// How far a snapshot was merged though its record is there. libvirt removes an overlay when all that is in it lies in the file below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeStage {
    /// All its overlays are there, and used as libvirt says.
    NotBegun,
    /// QEMU has merged this one: the running guest, or the overlay that follows, is on the file below it; libvirt has not removed it.
    InQemu {
        /// The overlay. All that is in it is below, or was written over there since.
        overlay: String,
    },
    /// Overlays are gone, the files below them are there, and the machine's definition still names one that is gone.
    InFiles,
    /// The same, and another snapshot is still kept in one that is gone, as libvirt's record of it says.
    Below {
        /// Name of the other.
        snapshot: String,
    },
    /// Some are gone, which the machine's definition does not name, and some are not.
    Partly,
    /// All are gone, and the machine's definition names none.
    Everywhere,
}

/// What an agent tried last for a snapshot; it may be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Nothing.
    None,
    /// It is being merged.
    Merging,
    /// Taking or merging it failed.
    Failed {
        /// What happened.
        message: String,
        /// When it may be tried again.
        again: Timestamp,
    },
}
