//! A domain as it should be at the next boot, given what was chosen once and is kept. Typed values are compared, never XML text. Pure.

use super::power::Power;
use super::{Desired, Seen, Shape};
use libvirt_xml::{Disk, Domain, Mark, Run};

/// The domain of a machine that has none yet. Its UUID is the object's UID.
pub fn new_domain(want: &Desired, shape: &Shape) -> Domain {
    let run = match want.power {
        Power::On => Run::Starting,
        Power::Off => Run::Stopped,
    };
    Domain {
        name: want.name.clone(),
        uuid: want.owner.uid.clone(),
        mark: Some(Mark {
            owner: want.owner.clone(),
            domain: want.owner.uid.clone(),
            run,
            restarted_at: want.restarted_at.clone(),
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
    }
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
        // The log of a domain that was retaken or renamed goes on where it was.
        console_log: base.console_log.clone().or_else(|| Some(shape.console_log.clone())),
        guest_agent: shape.guest_agent,
    }
}

/// What the next boot should get instead of what it would get, if anything.
pub fn pending(want: &Desired, seen: &Seen) -> Option<Domain> {
    let shape = want.shape.as_ref().ok()?;
    let reshaped = reshaped(&seen.config, shape, &seen.targets);
    (!same(&reshaped, &seen.config)).then_some(reshaped)
}

/// Names of the fields in which the running guest differs from the manifest.
pub fn waiting_for_restart(want: &Desired, seen: &Seen) -> Vec<&'static str> {
    let (Ok(shape), Some(live)) = (&want.shape, &seen.live) else {
        return Vec::new();
    };
    let goal = reshaped(&seen.config, shape, &seen.targets);
    let guest_cpu = &seen.config.cpu;
    [
        ("spec.cpu.cores", goal.vcpus != live.vcpus),
        // The live domain shows the processor that the model was turned into.
        ("spec.cpu.model", goal.cpu != *guest_cpu),
        ("spec.memory.size", goal.memory_kib != live.memory_kib),
        ("spec.accelerator", goal.accelerator != live.accelerator),
        ("spec.kernelBoot", goal.kernel != live.kernel),
        ("spec.disks", sorted(&goal.disks, |d| &d.name) != sorted(&live.disks, |d| &d.name)),
        ("spec.interfaces", sorted(&goal.interfaces, |n| &n.name) != sorted(&live.interfaces, |n| &n.name)),
        ("spec.guestAgent", goal.guest_agent != live.guest_agent),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
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
    let ordered = |domain: &Domain| Domain {
        mark: None,
        disks: sorted(&domain.disks, |d| &d.name),
        interfaces: sorted(&domain.interfaces, |n| &n.name),
        ..domain.clone()
    };
    ordered(a) == ordered(b)
}

fn sorted<T: Clone>(items: &[T], name: impl Fn(&T) -> &String) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort_by(|a, b| name(a).cmp(name(b)));
    items
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
