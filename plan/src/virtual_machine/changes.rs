//! A domain as it should be at the next boot, given what was chosen once and is kept; and what a running guest gets before that. Typed
//! values are compared, never XML text. Pure.
//!
//! While a guest runs, its definition follows the manifest in the disks alone, and the guest follows the definition. Everything else waits
//! for the next start, which brings the whole definition to the manifest.

use super::differences::{Difference, differences};
use super::overlays::gone_on;
use super::power::{ASK_AGAIN, Power};
use super::{Desired, Next, Seen, Shape, Step, Why};
use crate::names;
use crds::virtual_machine::{Apply, PendingChange};
use jiff::Timestamp;
use libvirt_xml::{Disk, DiskFormat, Domain, Mark, Run};
use sha2::{Digest, Sha256};

/// The domain of a machine that has none yet. Its UUID is the object's UID.
pub fn new_domain(want: &Desired, shape: &Shape) -> Domain {
    let run = match want.power {
        Power::On => Run::Starting,
        Power::Off => Run::Stopped,
    };
    signed(Domain {
        name: want.name.clone(),
        uuid: want.owner.uid.clone(),
        mark: Some(Mark {
            owner: want.owner.clone(),
            domain: want.owner.uid.clone(),
            run,
            restarted_at: want.restarted_at.clone(),
            applied: None,
        }),
        machine: "q35".into(),
        arch: shape.arch.clone(),
        accelerator: shape.accelerator,
        memory_kib: shape.memory_kib,
        vcpus: shape.vcpus,
        cpu: shape.cpu.clone(),
        kernel: shape.kernel.clone(),
        disks: disks(shape, &[], &[]),
        interfaces: shape.interfaces.clone(),
        console_log: Some(shape.console_log.clone()),
        guest_agent: shape.guest_agent,
    })
}

/// The domain `base` with what the manifest decides put in; name, UUID, mark, machine version and disk targets stay.
pub fn reshaped(base: &Domain, shape: &Shape, targets: &[String]) -> Domain {
    Domain {
        name: base.name.clone(),
        uuid: base.uuid.clone(),
        mark: base.mark.clone(),
        machine: base.machine.clone(),
        arch: base.arch.clone(),
        accelerator: shape.accelerator,
        memory_kib: shape.memory_kib,
        vcpus: shape.vcpus,
        cpu: shape.cpu.clone(),
        kernel: shape.kernel.clone(),
        disks: disks(shape, &base.disks, targets),
        interfaces: shape.interfaces.clone(),
        // A console that is there stays as it is, whoever made it.
        console_log: base.console_log.clone().or_else(|| Some(shape.console_log.clone())),
        guest_agent: shape.guest_agent,
    }
}

/// What the next boot should get instead of what it would get, if anything.
pub fn pending(want: &Desired, seen: &Seen) -> Option<Domain> {
    let shape = want.shape.as_ref().ok()?;
    let reshaped = reshaped(&seen.config, shape, &seen.targets);
    (!same(&reshaped, &seen.config)).then(|| signed(reshaped))
}

/// What brings a running guest closer to the manifest without stopping it.
pub fn live(want: &Desired, seen: &Seen, now: Timestamp) -> Next {
    let (Ok(shape), Some(live)) = (&want.shape, &seen.live) else {
        return Next::Done;
    };
    let goal = reshaped(&seen.config, shape, &seen.targets);
    // Somebody undefined it, or changed what is ours: it would be lost, or be another, at the next start.
    if !seen.persistent || is_drifted(seen) {
        return Next::Do(Step::Redefine(Box::new(signed(goal))));
    }
    let disks = definition(&goal, seen, live);
    if by_name(&disks) != by_name(&seen.config.disks) {
        return Next::Do(Step::Redefine(Box::new(signed(Domain { disks, ..seen.config.clone() }))));
    }
    if let Some(new) = seen.config.disks.iter().find(|disk| find(&live.disks, &disk.name).is_none()) {
        return Next::Do(Step::Attach { disk: new.name.clone() });
    }
    detach(&goal, live, seen, now)
}

/// The disks of a running guest's definition: a disk that stays keeps its own until the next start, a new one is there, an old one is not.
fn definition(goal: &Domain, seen: &Seen, live: &Domain) -> Vec<Disk> {
    let kept = |new: &Disk| {
        let old = find(&seen.config.disks, &new.name).or_else(|| find(&live.disks, &new.name));
        find(&live.disks, &new.name).and(old).map(|old| {
            // Not at the next start: whoever starts it next may be libvirt.
            let (file, format) = gone_on(seen, old);
            Disk { file, format, ..old.clone() }
        })
    };
    goal.disks.iter().map(|new| kept(new).unwrap_or_else(|| new.clone())).collect()
}

fn detach(goal: &Domain, live: &Domain, seen: &Seen, now: Timestamp) -> Next {
    let mut waits = Vec::new();
    for disk in live.disks.iter().filter(|disk| find(&goal.disks, &disk.name).is_none()) {
        let again = seen.detaching.get(&disk.name).map(|asked| *asked + ASK_AGAIN);
        match again.filter(|again| now < *again) {
            // A guest that is booting, or has no driver yet, drops the request: it is repeated.
            None => return Next::Do(Step::Detach { disk: disk.name.clone() }),
            Some(again) => waits.push((again, disk.name.clone())),
        }
    }
    match waits.iter().map(|(again, _)| *again).min() {
        None => Next::Done,
        until => Next::Wait { until, why: Why::Detach(waits.into_iter().map(|(_, name)| name).collect()) },
    }
}

/// What the running guest does not have yet.
pub fn waiting(want: &Desired, seen: &Seen) -> Vec<PendingChange> {
    let (Ok(shape), Some(live)) = (&want.shape, &seen.live) else {
        return Vec::new();
    };
    let goal = reshaped(&seen.config, shape, &seen.targets);
    // The live domain shows the processor that the model was turned into.
    let live = Domain { cpu: seen.config.cpu.clone(), ..live.clone() };
    differences(&live, &goal)
        .into_iter()
        .map(|Difference { field, disk, current, desired }| {
            let is_there = |of: &Domain| disk.as_ref().is_some_and(|name| find(&of.disks, name).is_some());
            let (apply, reason) = match (is_there(&live), is_there(&goal)) {
                (true, false) => (Apply::Live, "the guest has not let go of it yet"),
                (false, true) => (Apply::Live, "it is being attached"),
                (true, true) | (false, false) => (Apply::Restart, "it cannot be changed while the guest runs"),
            };
            PendingChange { path: field, current, desired, apply, reason: reason.into() }
        })
        .collect()
}

/// What somebody else changed in our part of the definition, as sentences for users; empty when nobody did.
pub fn drift(want: &Desired, seen: &Seen) -> Vec<String> {
    let Ok(shape) = &want.shape else { return Vec::new() };
    if !seen.persistent {
        return vec!["the domain had been undefined".into()];
    }
    if !is_drifted(seen) {
        return Vec::new();
    }
    let goal = reshaped(&seen.config, shape, &seen.targets);
    let told = |d: Difference| format!("{} had been changed to {}, it is {} again", d.field, d.current, d.desired);
    differences(&seen.config, &goal).into_iter().map(told).collect()
}

/// Whether the definition is other than we left it. Of what another version of ours left nobody can say.
fn is_drifted(seen: &Seen) -> bool {
    let known = seen.mark.applied.as_ref().filter(|known| known.starts_with(DIGESTED));
    known.is_some_and(|known| *known != digest(&seen.config))
}

/// The definition with our own digest, where it has another version's. Written at the next start: a new version of ours is no reason to
/// write a thousand definitions at once.
pub fn signed_anew(seen: &Seen) -> Option<Domain> {
    let other = seen.mark.applied.as_ref().is_some_and(|known| !known.starts_with(DIGESTED));
    other.then(|| signed(seen.config.clone()))
}

/// The domain with the digest of itself in its mark.
fn signed(domain: Domain) -> Domain {
    let applied = Some(digest(&domain));
    Domain { mark: domain.mark.clone().map(|mark| Mark { applied, ..mark }), ..domain }
}

/// How digests of this version begin: who changes what is digested, or how, counts it up. Bare ones are older.
const DIGESTED: &str = "1:";

/// Of what we own, but for what libvirt chooses at a definition, and on which of its volume's files a disk is: snapshots change that.
fn digest(domain: &Domain) -> String {
    let mut ours = Domain { machine: String::new(), ..ordered(domain) };
    for disk in &mut ours.disks {
        if let Some(volume) = names::volume_of(&disk.file) {
            (disk.file, disk.format) = (volume.to_owned(), DiskFormat::Qcow2);
        }
    }
    let bytes = Sha256::digest(format!("{ours:?}").as_bytes());
    bytes[..8].iter().fold(DIGESTED.to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn find<'a>(disks: &'a [Disk], name: &str) -> Option<&'a Disk> {
    disks.iter().find(|disk| disk.name == name)
}

fn disks(shape: &Shape, kept: &[Disk], taken: &[String]) -> Vec<Disk> {
    let mut taken: Vec<String> = taken.to_vec();
    let mut target = |name: &str| {
        if let Some(old) = kept.iter().find(|disk| disk.name == name) {
            return old.target.clone();
        }
        let free = (0..).map(target_name).find(|t| !taken.contains(t)).unwrap_or_default();
        taken.push(free.clone());
        free
    };
    shape
        .disks
        .iter()
        .map(|disk| Disk {
            target: target(&disk.name),
            name: disk.name.clone(),
            file: disk.file.clone(),
            format: disk.format,
            boot_order: disk.boot_order,
            read_only: disk.read_only,
        })
        .collect()
}

/// `vda` … `vdz`, `vdaa` …: Linux' names for virtio disks.
fn target_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        letters.push(b'a' + u8::try_from(rest % 26).unwrap_or_default());
        rest /= 26;
        if rest == 0 {
            break;
        }
        rest -= 1;
    }
    letters.reverse();
    format!("vd{}", String::from_utf8_lossy(&letters))
}

/// Equal, whatever the order of disks and interfaces, and apart from the mark.
fn same(a: &Domain, b: &Domain) -> bool {
    ordered(a) == ordered(b)
}

fn ordered(domain: &Domain) -> Domain {
    let mut interfaces = domain.interfaces.clone();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    Domain { mark: None, disks: by_name(&domain.disks), interfaces, ..domain.clone() }
}

fn by_name(disks: &[Disk]) -> Vec<Disk> {
    let mut disks = disks.to_vec();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    disks
}

#[cfg(test)]
mod tests {
    use super::target_name;

    #[test]
    fn targets_go_on_after_z() {
        let names: Vec<_> = [0, 25, 26, 51, 52, 701, 702].into_iter().map(target_name).collect();
        assert_eq!(names, ["vda", "vdz", "vdaa", "vdaz", "vdba", "vdzz", "vdaaa"]);
    }
}
