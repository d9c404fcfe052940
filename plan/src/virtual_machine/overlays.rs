//! Which file a disk is on when its volume has overlays of snapshots: the one that the domain has. Pure.
//!
//! A volume is known by the file that it began with. After an external snapshot its domain writes into an overlay over that file; a domain
//! put back onto the file below would lose all that was written since, and spoil the overlay. A libvirtd that dies as it switches may leave
//! a domain behind its disks ([`Seen::ahead`]): it is brought onto the overlay before it starts again.

use super::{Goal, Observed, Seen};
use crate::names;
use libvirt_xml::{Disk, DiskFormat};
use std::borrow::Cow;

/// The goal with each disk on the file that the domain has for it, where that is a file of the same volume.
pub fn kept<'a>(goal: &'a Goal, seen: &Observed) -> Cow<'a, Goal> {
    let (Goal::Exist(want), Observed::Ours(seen)) = (goal, seen) else {
        return Cow::Borrowed(goal);
    };
    let Ok(shape) = &want.shape else {
        return Cow::Borrowed(goal);
    };
    let mut shape = shape.clone();
    for disk in &mut shape.disks {
        let live = seen.live.iter().flat_map(|live| &live.disks);
        let has = seen.config.disks.iter().chain(live).find(|has| has.name == disk.name);
        if let Some(has) = has.filter(|has| is_over(seen, &has.file, &disk.file)) {
            (disk.file, disk.format) = gone_on(seen, has);
        }
    }
    let mut want = want.clone();
    want.shape = Ok(shape);
    Cow::Owned(Goal::Exist(want))
}

/// The file that a disk of the definition goes on with, and its format.
pub(super) fn gone_on(seen: &Seen, has: &Disk) -> (String, DiskFormat) {
    let ahead = seen.ahead.get(&has.file).map(|overlay| (overlay.clone(), DiskFormat::Qcow2));
    ahead.unwrap_or_else(|| (has.file.clone(), has.format))
}

/// Whether `file` is one of the volume of `base`: by its name, or because its own header says that it lies over it. Where the domain has
/// snapshots, a file that cannot be looked into may be the overlay of one, unless its name is another volume's.
fn is_over(seen: &Seen, file: &str, base: &str) -> bool {
    let stem = |path: &str| path.rsplit_once('/').and_then(|(_, name)| names::stem(name)).map(str::to_owned);
    let may_be = || stem(file).is_none_or(|of| Some(of) == stem(base));
    names::is_same_volume(file, base)
        || seen.chains.get(file).is_some_and(|below| below.iter().any(|b| b == base))
        || (seen.snapshots.0 > 0 && seen.unseen.contains(file) && may_be())
}
